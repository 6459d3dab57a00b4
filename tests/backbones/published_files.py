"""Tiny networks of every published family, and files in the layouts in which their authors publish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.checkpoints import KeyMap, KeyRows
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.contract.recording import randomise
from strategies.decoding.registry import by_family
from strategies.published.naming import Published

LLAMAGEN = {"n_layer": 2, "dim": 32, "n_head": 4, "multiple_of": 32, "vocab_size": 11, "num_classes": 3,
            "block_size": 16}  # fmt: skip
HYPER_PARAMETERS: dict[str, dict[str, Any]] = {
    "llamagen": LLAMAGEN,
    "par": {**LLAMAGEN, "ar_token_num": 4, "spe_token_num": 3},
    "rar": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
            "image_seq_len": 16, "condition_num_classes": 3, "codebook_size": 11},
    "lpd": {"img_size": 64, "decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 4,
            "class_num": 3, "vqgan_vocab_size": 11},
    "arpg": {**LLAMAGEN, "n_layer": 4},
    "randar": LLAMAGEN,
    "var": {"depth": 2, "embed_dim": 32, "num_heads": 4, "patch_nums": [1, 2, 3, 4], "V": 11, "Cvae": 4,
            "num_classes": 3},
    "maskgit": {"input_size": 4, "hidden_dim": 32, "depth": 2, "heads": 3, "mlp_dim": 128,
                "codebook_size": 11, "nclass": 3},
}  # fmt: skip
FAMILIES = sorted(HYPER_PARAMETERS)


@dataclass(frozen=True)
class Published4x4:
    """A family's strategy, its key map, and a network with random weights, on a 4 x 4 grid."""

    family: str
    strategy: Strategy
    keys: KeyMap
    network: Network

    def empty(self) -> Network:
        """A network of the same shape with other weights."""
        network = self.strategy.network(self.network.config).eval()
        randomise(network, seed=99)
        return network

    def state(self) -> dict[str, Tensor]:
        """The network's weights under the authors' keys."""
        return to_published(self.network, self.keys)

    def logits(self, network: Network) -> Tensor:
        """Teacher-forced logits of fixed tokens and labels, "no class" among them."""
        tokens = torch.arange(2 * self.strategy.places((4, 4))).reshape(2, -1) * 7 % 11
        lesson = self.strategy.lesson(2, (4, 4), torch.Generator().manual_seed(0), 0.0)
        with torch.no_grad():
            return self.strategy.taught_logits(network, tokens, torch.tensor([1, 3]), lesson)


def published(family: str) -> Published4x4:
    naming: Published = by_family(family)
    strategy, config = naming.configure({**naming.defaults, **HYPER_PARAMETERS[family]})
    network = strategy.network(config).eval()
    randomise(network)
    return Published4x4(family, strategy, naming.keys, network)


def to_published(network: nn.Module, keys: KeyMap) -> dict[str, Tensor]:
    """The inverse of the loader: our parameters cut into the authors' tensors."""
    state: dict[str, Tensor] = {}
    for name, parameter in network.state_dict().items():
        parts = keys.sources(name)
        fixed = sum(part.rows for part in parts if isinstance(part, KeyRows))
        equal = sum(isinstance(part, str) for part in parts)
        start = 0
        for part in parts:
            key = part if isinstance(part, str) else part.key
            rows = (len(parameter) - fixed) // equal if isinstance(part, str) else part.rows
            state[key] = parameter[start : start + rows].clone()
            start += rows
    return state | {key: state[original].clone() for key, original in keys.tied.items()}


def save_legacy(content: object, path: Path) -> None:
    """The format from before archives, which many published files still have."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


Saver = Callable[[object, Path], None]
