"""Metrics are known by how their names begin."""

import random

import pytest

from results.metrics import KINDS, kind_of, position


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("fd_fashion_inf@1000", "fd"),
        ("fd_inception_clean@5", "fd"),
        ("fid_clean@50000", "fid_clean"),
        ("fid_inf@50000", "fid"),
        ("sfd_inception@9", "sfd"),
        ("is@50000", "is"),
        ("is_fashion@8", "is"),
        ("accuracy@1000", "accuracy"),
    ],
)
def test_the_longest_declared_beginning_is_the_kind(name: str, stem: str) -> None:
    assert kind_of(name) is KINDS[stem]


def test_what_nothing_declares_is_a_score_against_the_reference() -> None:
    for name in ("depth@9", "isometry@9", "fdx_fashion@9"):
        assert (kind_of(name).better, kind_of(name).needs, kind_of(name).margin) == (
            "higher",
            "reference",
            None,
        )


def test_distances_stand_first_and_shares_last() -> None:
    names = [
        "fd_fashion@9",
        "fd_fashion_inf@9",
        "fd_fashion_clean@9",
        "fd_inception@9",
        "fd_inception_clean@9",
        "sfd_inception@9",
        "fid@9",
        "fid_inf@9",
        "fid_clean@9",
        "kid_fashion@9",
        "kid_inception@9",
        "kid@9",
        "is_fashion@9",
        "is_inception@9",
        "is@9",
        "cmmd@9",
        "depth@9",
        "precision@9",
        "recall@9",
        "accuracy@9",
    ]
    assert sorted(random.Random(0).sample(names, len(names)), key=position) == names
