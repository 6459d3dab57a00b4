"""The feature network and the judge: shapes, files, a short training, and the zoo's two."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.tokenizers import load_tokenizer
from backbones.weights import ZOO, save_half
from harness.images.data import load_dataset
from harness.quality.classifiers import ClassifierConfig, FeatureNetwork, accuracy, load_features, load_judge
from harness.train.classifier import ClassifierBudget, classifier_config, train_classifier
from harness.train.tokenizer import train_tokenizer
from pardec.errors import UserError
from pardec.hashing import file_sha256


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small convolutions lose more by waiting for a second thread than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("architecture", ["residual", "plain"])
@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
def test_any_image_size_gives_features_and_logits(architecture, size):
    network = FeatureNetwork(ClassifierConfig(architecture, width=4, features=6, classes=3)).eval()
    features, logits = network(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert (features.shape, logits.shape) == ((2, 6), (2, 3))


def test_features_do_not_depend_on_the_rest_of_the_batch():
    network = load_features()
    images = load_dataset("fashion", "held-out").images[:6]
    together, alone = network(images)[0], torch.cat([network(image[None])[0] for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_unusable_files_are_a_users_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_features(tmp_path / "absent.safetensors")
    path = tmp_path / "other.safetensors"
    save_half(torch.nn.Linear(2, 2), path, {"kind": "something else"})
    with pytest.raises(UserError, match=r"other.safetensors"):
        load_judge(path)


def test_rate_rises_then_falls_to_almost_nothing():
    budget = ClassifierBudget(steps=1000, warmup=100)
    rates = [budget.rate_at(step) for step in range(1000)]
    assert max(rates) == rates[100] == budget.rate
    assert rates == sorted(rates[:101]) + sorted(rates[101:], reverse=True)
    assert rates[-1] < 1e-4 * budget.rate


@pytest.fixture
def data(tmp_path):
    """A folder of 100 images of noise in two classes."""
    generator = np.random.default_rng(0)
    for number in range(100):
        folder = tmp_path / "images" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return f"imagefolder:{tmp_path / 'images'}"


def test_cards_are_complete_when_the_tokenizer_comes_first(tmp_path, data):
    path = train_tokenizer(tmp_path, steps=2, data=data)
    tokenizer = load_tokenizer(path)
    assert tokenizer.grid == (4, 4)
    features = train_classifier("features", tmp_path, steps=2, data=data, tokenizer=tokenizer)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["weights"]["sha256"] == file_sha256(path)
    assert [point["step"] for point in card["losses"]] == [1, 2]
    assert card["reconstruction"]["held-out"]["psnr_db"] > 0
    assert card["reconstruction_distance"]["metric"] == "fd_images@20"
    assert card["reconstruction_distance"]["extractor_sha256"] == file_sha256(features)
    accuracy_of = json.loads(features.with_suffix(".json").read_text())["accuracy"]
    assert set(accuracy_of) == {"train", "held_out", "held_out_reconstructed"}


def test_training_is_seeded_and_leaves_the_global_stream_alone(tmp_path, data):
    before = torch.random.get_rng_state()
    first, second = (train_classifier("judge", tmp_path / name, steps=2, data=data) for name in ("a", "b"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert file_sha256(first) == file_sha256(second)
    card = json.loads(first.with_suffix(".json").read_text())
    assert card["weights"]["sha256"] == file_sha256(first) == load_judge(first).sha256
    assert card["budget"]["steps"] == 2


@pytest.mark.parametrize(
    ("count", "within", "least"),
    [
        (1500, 0.03, 0.89),  # 4 standard errors of a share of 0.92 over so many images
        pytest.param(10_000, 0.002, 0.92, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("role", "load"), [("features", load_features), ("judge", load_judge)])
def test_zoo_classifiers_are_as_good_as_their_cards_say(role, load, count, within, least):
    network, card = load(), json.loads((ZOO / f"{role}.json").read_text())
    held_out = load_dataset("fashion", "held-out").first(count)
    assert card["weights"]["sha256"] == network.sha256
    assert network.config == classifier_config(role, 10)
    found = accuracy(network, held_out.images, held_out.labels)
    assert found == pytest.approx(card["accuracy"]["held_out"], abs=within)
    assert found >= least
    assert card["accuracy"]["held_out"] >= 0.92
    assert card["accuracy"]["held_out_reconstructed"] >= 0.90


def test_the_judge_is_not_the_feature_network():
    assert load_features().config.architecture != load_judge().config.architecture


def test_reconstructions_are_close_to_their_originals_by_the_features():
    card = json.loads((ZOO / "tokenizer.json").read_text())["reconstruction_distance"]
    assert card["extractor_sha256"] == load_features().sha256
    assert card["originals_from_train"] < card["reconstructions_from_train"] < 0.2
