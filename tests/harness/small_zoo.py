"""A zoo of tiny untrained networks, for tests of everything around them."""

from dataclasses import asdict
from pathlib import Path

import torch

from backbones.config import NetworkConfig, TrunkConfig
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.weights import save_half
from harness.images.data import load_dataset
from harness.quality.assess.stored import store_reference
from harness.quality.classifiers import ClassifierConfig, FeatureNetwork, load_features
from harness.quality.sets import Extractor
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Recipe, Trainer
from strategies.decoding import registry

TRUNK = TrunkConfig(depth=2, width=32, heads=2, mlp_width=64)
REFERENCE = 1000
"""Images behind the stored reference; the training images don't travel with the package."""
STRATEGIES = ("raster", "rar", "par", "lpd", "arpg", "randar", "maskgit")


def make_zoo(folder: Path, strategies: tuple[str, ...] = STRATEGIES) -> Path:
    """Tokenizer, classifiers and networks for 8x8 grids of 64 codes and ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = FSQTokenizer(FSQConfig(encoder_width=4, decoder_width=4))
        save_half(tokenizer, folder / "tokenizer.safetensors", {"kind": "fsq", **asdict(tokenizer.config)})
        for role, config in (
            ("features", ClassifierConfig("residual", width=8, features=16)),
            ("judge", ClassifierConfig("plain", width=8, features=16)),
        ):
            save_half(FeatureNetwork(config), folder / f"{role}.safetensors", asdict(config))
        features = load_features(folder / "features.safetensors")
        extractor = Extractor.of("fashion", features, features.sha256)
        store_reference(load_dataset("fashion", "held-out").first(REFERENCE), extractor, folder)
        for name in strategies:
            strategy = registry.get(name)
            trainer = Trainer(strategy, NetworkConfig(TRUNK, 64, 10, (8, 8)), Recipe(), folder / "run")
            with torch.no_grad():
                trainer.averaged.module.head.weight.normal_(std=0.2)
            store_zoo(trainer, folder, {})
    return folder
