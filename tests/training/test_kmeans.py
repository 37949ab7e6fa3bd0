import pytest
import torch

from training.kmeans import kmeans


def test_kmeans_finds_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(4)
    tokens = 3 * directions.repeat_interleave(50, dim=0) + 0.05 * torch.randn(200, 4, generator=generator)
    centres = kmeans(tokens, 12, generator)
    cosine = torch.nn.functional.normalize(centres, dim=1) @ directions.T
    assert (cosine.max(dim=0).values > 0.99).all()
    assert centres.norm(dim=1).mean() == pytest.approx(3.0, rel=0.05)
    assert kmeans(tokens[:5], 12, generator).shape == (12, 4)
