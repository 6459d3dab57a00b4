"""Clusters of codes, and the vectors of codes that they are made of."""

import pytest
import torch

from backbones.tokenizers.clusters import cluster_codes
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer


def test_near_codes_share_a_cluster_and_clusters_are_numbered_by_their_first_code():
    vectors = torch.tensor([[5.0], [0.1], [5.1], [9.0], [0.0], [9.2]])
    assert cluster_codes(vectors, 3).tolist() == [0, 1, 0, 2, 1, 2]
    assert cluster_codes(vectors, 6).tolist() == [*range(6)]
    assert cluster_codes(vectors, 1).tolist() == [0] * 6


@pytest.mark.parametrize("clusters", [2, 7, 16, 40, 64])
def test_no_cluster_is_empty_and_each_code_is_nearest_to_its_own(clusters):
    vectors = torch.randn(64, 3, generator=torch.Generator().manual_seed(clusters))
    found = cluster_codes(vectors, clusters)
    assert found.dtype == torch.int64
    assert torch.equal(found, cluster_codes(vectors, clusters))
    assert torch.equal(found.unique(), torch.arange(clusters))
    centres = torch.stack([vectors[found == one].mean(dim=0) for one in range(clusters)])
    assert torch.equal(torch.cdist(vectors, centres).argmin(dim=1), found)


def test_equal_vectors_are_still_dealt():
    assert sorted(cluster_codes(torch.zeros(5, 2), 3).unique().tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="6 clusters of 5 codes"):
        cluster_codes(torch.zeros(5, 2), 6)


def test_vectors_of_scalar_quantisation_are_the_levels_of_each_code():
    tokenizer = FSQTokenizer(FSQConfig(levels=(4, 2), encoder_width=4, decoder_width=4))
    vectors = tokenizer.vectors()
    assert vectors.shape == (8, 2)
    assert vectors[0].tolist() == [-1, -1]
    assert vectors[7].tolist() == [1, 1]
    assert len(vectors.unique(dim=0)) == 8
    codes = torch.arange(8).reshape(1, 2, 4)
    expected = vectors[codes].permute(0, 3, 1, 2)
    assert torch.equal(tokenizer.quantiser.values(codes), expected)
