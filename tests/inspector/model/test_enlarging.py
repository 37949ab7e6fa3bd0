"""Maps enlarged and added up are what F.interpolate makes of them, one by one."""

import pytest
import torch
from torch.nn import functional as F

from inspector.model.enlarging import enlarged_sum


@pytest.mark.parametrize("sides", [(48, 24, 12, 6, 3), (13, 5), (60,), (1,)])
def test_the_sum_of_the_enlarged(sides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, side, side) for side in sides]
    want = sum(F.interpolate(m[:, None], (60, 60), mode="bilinear", align_corners=False)[:, 0] for m in maps)
    with torch.autocast("cpu", torch.bfloat16):  # which must not round a map
        got = enlarged_sum(maps, 60)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_gradients_flow_after_inference_mode_filled_the_cache() -> None:
    with torch.inference_mode():
        enlarged_sum([torch.ones(1, 4, 4), torch.ones(1, 2, 2)], 11)
    small = torch.ones(1, 2, 2, requires_grad=True)
    enlarged_sum([torch.ones(1, 4, 4), small], 11).sum().backward()
    assert small.grad is not None
    assert float(small.grad.sum()) == pytest.approx(121)
