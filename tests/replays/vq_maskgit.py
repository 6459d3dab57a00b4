"""Replays recordings of MaskGIT's tokenizer, whose pixels are in [0, 1]."""

from functools import partial

from tests.replays.common import replay_tokenizer

REPLAYS = {"tokenizer": partial(replay_tokenizer, unit=True)}
