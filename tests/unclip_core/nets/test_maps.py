"""The maps through which an embedding reaches the bundled decoder."""

import pytest
import torch

from unclip.unclip_core.nets.map_conditioner import FactoredMap, FreeMap, MapConditioner, MapConditionerParams


def test_a_factored_map_is_the_sum_of_products():
    torch.manual_seed(0)
    made = FactoredMap(hidden=5, channels=3, size=4, factors=2).double()
    h = torch.randn(2, 5, dtype=torch.float64)
    values = (h @ made.linear.weight.T + made.linear.bias).view(2, 2, 3 + 4 + 4)
    expected = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    for b in range(2):
        for k in range(2):
            what, row, column = values[b, k, :3], values[b, k, 3:7], values[b, k, 7:]
            for y in range(4):
                for x in range(4):
                    expected[b, :, y, x] += what * (1 + row[y]) * (1 + column[x]) / 2**0.5
    torch.testing.assert_close(made(h), expected)


def test_a_free_map_has_a_weight_row_for_every_value():
    made = FreeMap(hidden=5, channels=3, size=4)
    h = torch.randn(2, 5)
    flat = h @ made.weight.T + made.bias
    torch.testing.assert_close(made(h)[1, 2, 3, 0], flat[1, (3 * 4 + 0) * 3 + 2])


def params(**changes):
    given = {
        "embed_dim": 6,
        "hidden": 8,
        "time_embed_dim": 10,
        "map_channels": (0, 3, 4),
        "map_sizes": (0, 4, 2),
        "factors": (0, 2, 0),
    }
    return MapConditionerParams(**{**given, **changes})


def test_each_level_gets_the_kind_of_map_it_asks_for():
    conditioner = MapConditioner(params())
    assert {level: type(made) for level, made in conditioner.maps.items()} == {"1": FactoredMap, "2": FreeMap}
    condition = conditioner(torch.randn(5, 6))
    assert condition["maps.1"].shape == (5, 3, 4, 4)
    assert condition["maps.2"].shape == (5, 4, 2, 2)


def test_what_tells_two_embeddings_apart_survives_the_mlp():
    torch.manual_seed(0)
    conditioner = MapConditioner(params(embed_dim=64, hidden=128, depth=3))
    condition = conditioner(torch.randn(200, 64))
    assert float(condition["embed"].std(dim=0).mean()) > 0.1


def test_factors_and_levels_must_agree():
    with pytest.raises(ValueError, match="3 map_channels, but 2 factors"):
        params(factors=(1, 2))
