"""Train the feature network and the judge on real images and write them to the zoo with their cards."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.tokenizers.base import Tokenizer
from backbones.transformer import parameter_count
from backbones.weights import save_half, write_card
from harness.images.data import Augmentation, Dataset, check_size, load_dataset
from harness.images.names import is_fashion, metric_name
from harness.machine.precision import taught_products
from harness.quality import Extractor
from harness.quality.assess.stored import store_reference
from harness.quality.classifiers import ClassifierConfig, FeatureNetwork, accuracy, load_features
from harness.quality.reconstruction import reconstruct, reconstruction_distances, record_distances
from harness.train.fitting import Budget, fit, seeded
from harness.train.tokenizer import WATCHED, Started, data_card, run_card

Role = Literal["features", "judge"]
STRONG = Augmentation(degrees=12, shift=2, scale=0.12)


@dataclass(frozen=True)
class ClassifierBudget(Budget):
    """Augmentation is stronger than the networks' own."""

    steps: int = 3000
    batch: int = 64
    warmup: int = 200
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    augmentation: Augmentation | None = STRONG


def classifier_config(role: Role, classes: int) -> ClassifierConfig:
    """Two different architectures, so that the judge's mistakes are its own."""
    if role == "features":
        return ClassifierConfig("residual", width=24, features=64, classes=classes)
    return ClassifierConfig("plain", width=32, features=96, classes=classes, dropout=0.4)


def train_classifier(
    role: Role,
    out_dir: Path,
    steps: int = ClassifierBudget.steps,
    seed: int | None = None,
    device: str = "cpu",
    data: str = "fashion",
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Train on the augmented training split and write ROLE.safetensors and ROLE.json.

    The seed is 1 for the feature network and 2 for the judge unless given. With a ``tokenizer`` the card also
    says how well its reconstructions of held-out images are classified, and the feature network's distances
    of them go into the tokenizer's card in the same folder.

    Returns:
        The path of the weights.

    Raises:
        UserError: images of another size than the tokenizer's.
    """
    started = Started.now()
    seed = seed if seed is not None else {"features": 1, "judge": 2}[role]
    # Clothes keep their scale: a shift and a slight turn are all that varies them.
    augmentation = Augmentation() if is_fashion(data) else STRONG
    budget = ClassifierBudget(steps=steps, seed=seed, augmentation=augmentation)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    if tokenizer is not None:
        check_size(train, tokenizer.image_size, f"the tokenizer in '{out_dir}'")
    with seeded(seed):
        network = FeatureNetwork(classifier_config(role, len(train.classes)))
        network = network.to(device).to(memory_format=torch.channels_last)
        curve = _fit(network, train, held_out, budget, role)
    path = out_dir / f"{role}.safetensors"
    sha256 = save_half(network, path, asdict(network.config))
    frozen = load_features(path)
    card = {
        "name": role,
        "config": asdict(frozen.config),
        "parameters": parameter_count(frozen),
        "weights": {
            "file": path.name,
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "precision": "float16",
        },
        "data": data_card(train, held_out),
        "budget": asdict(budget) | {"optimiser": "AdamW"},
        "losses": curve,
        "accuracy": accuracies(frozen, train, held_out, tokenizer),
        "environment": run_card(started, device),
        "command": f"pardec train {role} --data {data} --steps {steps} --seed {seed}",
    }
    write_card(path.with_suffix(".json"), card)
    tokenizer_card = out_dir / "tokenizer.json"
    if role == "features" and tokenizer is not None and tokenizer_card.is_file():
        record_distances(tokenizer_card, reconstruction_distances(train, held_out, tokenizer, frozen))
    if role == "features" and is_fashion(data):
        store_reference(train, Extractor.of(metric_name(data), frozen, frozen.sha256), out_dir)
    return path


def _fit(
    network: FeatureNetwork, train: Dataset, held_out: Dataset, budget: ClassifierBudget, role: Role
) -> list[dict[str, float]]:
    """Minimise the cross-entropy; returns about 12 points of the loss curve."""
    watched = held_out.first(WATCHED)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        network.train()
        with taught_products(images.device):
            _, logits = network.from_floats(images)
        return F.cross_entropy(logits.float(), labels, label_smoothing=budget.label_smoothing)

    def watch() -> dict[str, float]:
        network.eval()
        return {"held_out_accuracy": accuracy(network, watched.images, watched.labels)}

    curve = fit(role, list(network.parameters()), train, budget, loss_of, watch, points=12)
    network.eval()
    return curve


def accuracies(
    network: FeatureNetwork, train: Dataset, held_out: Dataset, tokenizer: Tokenizer | None
) -> dict[str, float]:
    found = {
        "train": accuracy(network, train.images, train.labels),
        "held_out": accuracy(network, held_out.images, held_out.labels),
    }
    if tokenizer is not None:
        found["held_out_reconstructed"] = accuracy(network, reconstruct(held_out, tokenizer), held_out.labels)
    return found
