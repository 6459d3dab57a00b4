"""What is asked once about operations on tensors without values, and what must not be."""

import torch

from harness.cost.recorder import META, Recorder, works_of


def test_a_form_worked_out_once_is_that_of_every_later_operation_of_the_kind():
    whole, x = torch.empty(2, 3, dtype=torch.int64, device=META), torch.empty(3, 2, device=META)
    with Recorder(set()):
        for _ in range(2):
            made = [whole + 1, whole + 1.0, whole + True, x + 1, x.mT + 1, torch.cat([x, x], 1)]
            assert [one.dtype for one in made[:3]] == [torch.int64, torch.float32, torch.int64]
            assert [one.shape for one in made[3:]] == [(3, 2), (2, 3), (3, 4)]
            assert made[3].stride() == (2, 1)
            assert made[4].stride() == (1, 2)


def test_tensors_with_values_are_worked_on():
    """A schedule that a strategy makes stays a schedule."""
    with Recorder(set()):
        schedule = torch.ones(4)
        schedule[:2].mul_(3)
        assert schedule.tolist() == [3, 3, 1, 1]
        assert (schedule + 1).tolist() == [4, 4, 2, 2]


def test_what_shares_memory_makes_none():
    recorder = Recorder(set())
    with recorder:
        x = torch.empty(4, 4, device=META)
        kept = [x.view(16), x.reshape(2, 8), x.add_(1), x[1:], torch.ops.aten._unsafe_view(x, [16])]
        assert all(one.untyped_storage()._cdata == x.untyped_storage()._cdata for one in kept)
        assert recorder.live_bytes == x.nbytes
        assert [one.launches for one in works_of(recorder.steps[0])] == [1]


def test_a_name_that_ends_like_one_in_place_is_none():
    with Recorder(set()):
        x, y = (
            torch.empty(1, 4, dtype=torch.int64, device=META),
            torch.empty(3, 1, dtype=torch.int64, device=META),
        )
        assert torch.ops.aten.__lshift__(x, y).shape == (3, 4)


def test_what_changes_its_form_in_place_has_the_new_one():
    with Recorder(set()):
        x = torch.empty(4, 2, device=META)
        x.unsqueeze_(0)
        assert x.shape == (1, 4, 2)
        x.transpose_(1, 2)
        assert x.shape == (1, 2, 4)
