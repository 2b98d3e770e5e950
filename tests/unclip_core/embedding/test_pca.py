"""PCA of embeddings against the eigenvectors of their covariance, and its file."""

import pytest
import torch

from unclip.unclip_core.embedding.pca import fit_basis, load_basis, reconstruct, save_basis
from unclip.unclip_core.weights.files import CheckpointError, save_weights

GENERATOR = torch.Generator().manual_seed(3)
SPREAD = torch.tensor([9.0, 5.0, 3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
ROWS = torch.randn(40, 6, generator=GENERATOR, dtype=torch.float64) * SPREAD + 20


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def test_components_are_the_covariances_eigenvectors_by_their_eigenvalues():
    basis = fit_basis(ROWS)
    values, vectors = torch.linalg.eigh(torch.cov(ROWS.T))
    torch.testing.assert_close(basis.variance, values.flip(0))
    overlap = (basis.components * vectors.flip(1).T).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(basis.mean, ROWS.mean(0))
    torch.testing.assert_close(basis.explained, values.flip(0).cumsum(0) / values.sum())


def test_the_sign_is_the_one_that_makes_the_largest_number_positive():
    one, other = fit_basis(ROWS), fit_basis(2 * ROWS.mean(0) - ROWS)
    torch.testing.assert_close(one.components, other.components)


def test_all_dimensions_give_the_embedding_back_and_fewer_its_projection():
    basis = fit_basis(ROWS)
    torch.testing.assert_close(reconstruct(basis, ROWS, 6), ROWS)
    two = ROWS.mean(0) + (ROWS - ROWS.mean(0)) @ basis.components[:2].T @ basis.components[:2]
    torch.testing.assert_close(unit(reconstruct(basis, ROWS, 2)), unit(two))
    torch.testing.assert_close(reconstruct(basis, ROWS, 2).norm(dim=1), ROWS.norm(dim=1))


def test_each_dimension_brings_the_embeddings_nearer():
    basis = fit_basis(ROWS, dimensions=5)
    assert len(basis.components) == 5 and basis.explained[-1] < 1
    away = [(reconstruct(basis, ROWS, k) - ROWS).norm().item() for k in range(1, 6)]
    assert away == sorted(away, reverse=True) and away[-1] < 0.1 * away[0]


@pytest.mark.parametrize(("dtype", "count"), [(torch.bfloat16, 200), (torch.float16, 1200)])
def test_embeddings_in_half_precision_have_the_components_of_their_own_numbers(dtype, count):
    """From 1 / eps rows on (128 in bfloat16, 1024 in float16) the rounding that was assumed was all there is."""
    rows = (torch.randn(count, 6, generator=torch.Generator().manual_seed(5)) * SPREAD).to(dtype)
    basis = fit_basis(rows)
    values, vectors = torch.linalg.eigh(rows.double().T.cov())
    torch.testing.assert_close(basis.variance, values.flip(0))
    assert basis.components.shape == (6, 6)
    torch.testing.assert_close((basis.components @ vectors.flip(1)).abs(), torch.eye(6, dtype=torch.float64))


def test_so_many_numbers_that_rounding_is_all_there_is_are_refused():
    rows = torch.zeros(2, 2**23)
    rows[0, 0] = 1
    with pytest.raises(ValueError, match="too many for their precision"):
        fit_basis(rows)


def test_few_embeddings_have_few_dimensions():
    assert len(fit_basis(ROWS[:3]).components) == 2
    assert fit_basis(ROWS.float()).mean.dtype == torch.float64
    assert reconstruct(fit_basis(ROWS), ROWS.float(), 3).dtype == torch.float32


@pytest.mark.parametrize(
    ("rows", "dimensions", "words"),
    [
        (ROWS[:1], 0, "at least two"), (ROWS[0], 0, "at least two"), (ROWS[:1].expand(4, 6), 0, "all the same"),
        (ROWS * torch.nan, 0, "NaN"), (ROWS, -1, "-1 dimensions"),
    ],
)  # fmt: skip
def test_what_has_no_components_is_refused(rows, dimensions, words):
    with pytest.raises(ValueError, match=words):
        fit_basis(rows, dimensions)


def test_dimensions_that_the_basis_lacks_are_refused():
    basis = fit_basis(ROWS, 3)
    for dimensions in (0, 4, -1):
        with pytest.raises(ValueError, match="has 3 dimensions"):
            reconstruct(basis, ROWS, dimensions)
    with pytest.raises(ValueError, match="5 numbers do not fit a basis for 6"):
        reconstruct(basis, ROWS[:, :5], 2)


def test_a_basis_comes_back_from_its_file(tmp_path):
    path, basis = tmp_path / "basis.safetensors", fit_basis(ROWS, 4)
    save_basis(path, basis, "tiny")
    found, family = load_basis(path)
    assert family == "tiny" and (found.count, found.total) == (40, basis.total)
    for name in ("mean", "components", "variance"):
        assert torch.equal(getattr(found, name), getattr(basis, name))


def test_files_that_hold_no_basis_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for tensors, header, words in [
        ({"a": torch.ones(2)}, {"kind": "unclip-embedding"}, "no PCA basis"),
        ({"a": torch.ones(2)}, ["unclip-pca"], "no readable 'config'"),
        ({"a": torch.ones(2)}, {"kind": "unclip-pca"}, "no whole PCA basis"),
        (
            {"mean": torch.ones(3), "components": torch.ones(2, 4), "variance": torch.ones(2)},
            {"kind": "unclip-pca", "family": "t", "total": 1.0, "count": 2}, "do not fit",
        ),
    ]:  # fmt: skip
        save_weights(path, tensors, header)
        with pytest.raises(CheckpointError, match=words):
            load_basis(path)
    with pytest.raises(CheckpointError, match="no file"):
        load_basis(tmp_path / "missing.safetensors")
