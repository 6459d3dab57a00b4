"""Quality of a set of images against a reference: distances, precision and recall, accuracy, with intervals.

    features = extract(images, extractor)  # once per set
    reference = ReferenceStats.of(extract(real, extractor), "fashion-train")
    metrics = quality(features, reference, labels, predictions)

Names carry extractor and number of images (``fd_fashion@1000``): a Fréchet distance depends on both, is
biased upwards by about c/N, and must never be set beside one at another N or under another extractor.

Two protocols are in use for published numbers, both on ports of the same 2015 Inception weights:

* ADM (OpenAI guided-diffusion, and torch-fidelity's ``inception-v3-compat`` nearly so): TensorFlow-1 bilinear
  resize to 299 without antialiasing inside the network; reference statistics of the training set from a file;
  score over chunks of 5,000 in file order (torch-fidelity: 10 shuffled splits); precision and recall on
  pool_3 with k = 3 (torch-fidelity's default would be VGG16).
* clean-fid (``quality.clean``): antialiased bicubic resize to 299 before the network, which changes the
  features; covariance root by scipy; no score, precision or recall. A column of its own, ``fid_clean@N``.

Ours: images enter the extractor at their own size, so both implementations read the same features and
differ by rounding alone; reference, colour rounding and labels are the same for all rows and stand in each.

Both libraries import torchvision, and with it torch's compiler, which takes longer than torch itself. So they
are imported where they are called: a process that scores nothing does without.
"""

from harness.quality.adm import check_adm, read_adm
from harness.quality.errors import Unmeasurable
from harness.quality.inception import (
    download_inception,
    inception_extractor,
    inception_weights_file,
)
from harness.quality.score import Metric, quality, replicates, spatial_distance, unmeasured
from harness.quality.sets import (
    Extractor,
    Features,
    ReferenceStats,
    extract,
    extract_parts,
    protocol,
    weights_sha256,
)

__all__ = [
    "Extractor",
    "Features",
    "Metric",
    "ReferenceStats",
    "Unmeasurable",
    "check_adm",
    "download_inception",
    "extract",
    "extract_parts",
    "inception_extractor",
    "inception_weights_file",
    "protocol",
    "quality",
    "read_adm",
    "replicates",
    "spatial_distance",
    "unmeasured",
    "weights_sha256",
]
