"""Every golden number of the reference that a static method has, float64 and float32."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evomerge.merge import _sparsified as thinned
from evomerge.merge import _sparsify as sparsify
from evomerge.merge import merge, metagpt_weights

from .fixtures import BASE, DELTAS, MASK, run, spread

ROWS = json.loads((Path(__file__).parent / "golden.json").read_text())
SOURCES = {
    "theta1..3": (False, (1, 2, 3)),
    "theta1,theta2": (False, (1, 2)),
    "base,theta1..3": (True, (1, 2, 3)),
    "base,theta1,theta2": (True, (1, 2)),
    "base,theta1": (True, (1,)),
    "tau1..3": (True, (1, 2, 3)),
    "tau1,tau2": (True, (1, 2)),
    "tau1": (True, (1,)),
    "tau2": (True, (2,)),
    "tau3": (True, (3,)),
}
# the reference's names of variants, percentages and letters, in the catalogue's words
WORDS = {
    "ties_reference": lambda p: ("ties", {"weight": 1.0, "density": p["K"] / 100, "variant": "reference"}),
    "breadcrumbs_reference": lambda p: (
        "breadcrumbs",
        {"weight": 1.0, "density": p["keep"], "gamma": p["remove"], "variant": "reference"},
    ),
    "sce_reference": lambda p: ("sce", {"select_topk": p["select_topk"], "variant": "reference"}),
    "magmax": lambda p: ("magmax", {"lambda": p["lam"]}),
    "pcb": lambda p: ("pcb", {"density": p["ratio"], "clip": p["clip"]}),
    "compeft": lambda p: ("compeft", {"weight": 1.0, "density": p["k"] / 100, "alpha": p["alpha"]}),
    "star": lambda p: ("star", {"eta": p["eta"] / 100}),
    "iso_c": lambda p: ("iso_c", {"lambda": p["alpha"]}),
    "tsvm": lambda p: ("tsv_m", {"lambda": p["alpha"]}),
}
SPECIAL = {"dare", "della", "della_keep_probability", "metagpt_lambda", "cabs", "ram", "ramplus_tl", "slerp"}
PLAIN = [row for row in ROWS if row["method"] not in SPECIAL]
DTYPES = [(torch.float64, 2e-6), (torch.float32, 1e-5)]


def rows(*methods: str) -> list[dict]:
    return [row for row in ROWS if row["method"] in methods]


def close(actual: Tensor, expected: list[float], atol: float) -> None:
    torch.testing.assert_close(
        actual.double().flatten(), torch.tensor(expected, dtype=torch.float64), atol=atol, rtol=0
    )


@pytest.mark.parametrize(("dtype", "atol"), DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("row", PLAIN, ids=[f"{row['id']}-{index}" for index, row in enumerate(PLAIN)])
def test_golden_merge(row: dict, dtype: torch.dtype, atol: float) -> None:
    name, values = WORDS.get(row["method"], lambda p: (row["method"], p))(row["params"])
    has_base, which = SOURCES[row["inputs"]]
    models = [(BASE + DELTAS[index - 1]).to(dtype) for index in which]
    base = BASE.to(dtype) if has_base else None
    merged = run(name, base, models, **values)
    assert merged.dtype == dtype
    close(merged - base if row["kind"] == "delta" else merged, row["expect"], atol)


def test_golden_slerp() -> None:
    (row,) = rows("slerp")
    close(run("slerp", BASE + DELTAS[0], [BASE + DELTAS[1]], **row["params"]), row["expect"], 2e-6)


@pytest.mark.parametrize("row", rows("dare"), ids=lambda row: row["params"]["rescale"])
def test_golden_dare_rescaling(row: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsify, "uniform", lambda *_, **__: 1.0 - MASK.flatten().double())  # 0 is kept, 1 dropped
    values = spread("dare_linear", {"weight": 1.0, "density": 0.5, "rescale_norm": row["params"]["rescale"]}, 1)
    close(merge("dare_linear", torch.zeros_like(BASE), DELTAS[:1], values, keys=[0]), row["expect"], 2e-6)


def test_golden_della(monkeypatch: pytest.MonkeyPatch) -> None:
    (probability,), (row,) = rows("della_keep_probability"), rows("della")
    close(sparsify.keep_probability(DELTAS[0], 0.6, 0.2), probability["expect"], 2e-6)
    monkeypatch.setattr(thinned, "bernoulli", lambda *_, **__: MASK.flatten())
    values = {"weight": [1.0], "density": [0.6], "epsilon": [0.2], "rescale_norm": "inv"}
    close(merge("della_linear", torch.zeros_like(BASE), DELTAS[:1], values, keys=[0]), row["expect"], 2e-6)


def test_golden_metagpt() -> None:
    (row,) = rows("metagpt_lambda")
    close(torch.tensor(metagpt_weights(DELTAS, [-1.0] * 3)), row["expect"], 2e-6)
    expected = [0.211073, -0.368282, -0.119193, 0.205044, 0.207308, -0.100812, 0.338780, -0.314961]
    close(merge("metagpt", BASE, DELTAS, {}) - BASE, expected, 2e-6)


@pytest.mark.parametrize("row", rows("cabs"), ids=lambda row: row["inputs"])
def test_golden_cabs(row: dict) -> None:
    weight = [float(index + 1 == row["params"]["expert"]) for index in range(3)]  # look at one model's share
    values = {"weight": weight, "n": [1, 1, 1], "m": 4}
    close(merge("cabs", torch.zeros_like(BASE), DELTAS, values), row["expect"], 2e-6)


def test_golden_cabs_two_of_four() -> None:
    values = {"weight": [0.0, 1.0], "n": [2, 2], "m": 4}
    close(merge("cabs", torch.zeros_like(BASE), DELTAS[:2], values), [0, 0, 0.2, 0.05, 0.6, 0, 0.35, 0], 2e-6)


@pytest.mark.parametrize("row", rows("ram", "ramplus_tl"), ids=lambda row: row["method"])
def test_golden_ram(row: dict) -> None:
    taus = [torch.tensor(tau, dtype=torch.float64).reshape(2, 4) for tau in rows("ram")[0]["params"]["taus"]]
    close(merge(row["method"], BASE, taus, {}), row["expect"], 2e-6)


# --- numbers of the family sections ---


def test_golden_karcher_with_a_zero_tensor() -> None:
    close(merge("karcher", None, [torch.zeros(4), torch.ones(4)], {}), [0.5] * 4, 1e-6)


def test_golden_slerp_with_a_zero_tensor() -> None:
    close(merge("slerp", torch.zeros(4), [torch.ones(4)], {"t": 0.25}), [0.382683] * 4, 2e-6)


def test_golden_slerp_of_opposite_tensors_is_linear() -> None:
    a = torch.tensor([1.0, 2.0, -3.0])
    close(merge("slerp", a, [-a], {"t": 0.3}), (0.4 * a).tolist(), 1e-6)


def test_golden_star() -> None:
    delta = torch.diag(torch.tensor([4.0, 3, 2, 1], dtype=torch.float64))
    merged = merge("star", torch.zeros_like(delta), [delta], {"eta": [0.6]})
    close(merged, torch.diag(torch.tensor([40 / 7, 30 / 7, 0, 0])).flatten().tolist(), 1e-6)
    mean = merge("star", BASE, DELTAS, {"eta": [1.0] * 3})
    close(mean, (BASE + sum(DELTAS) / 3).flatten().tolist(), 1e-12)


def test_golden_iso() -> None:
    deltas = [torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([4, 0, 2, 0], [0, 3, -0.5, 1])]
    zero = torch.zeros(4, 4, dtype=torch.float64)
    close(merge("iso_c", zero, deltas, {}), (2.375 * torch.eye(4)).flatten().tolist(), 1e-12)
    common = merge("iso_cts", zero, deltas, {"common_fraction": 0.5})
    close(common, (2.5 * torch.eye(4)).flatten().tolist(), 1e-12)
    iso_c = merge("iso_c", BASE, DELTAS, {})
    close(merge("iso_cts", BASE, DELTAS, {"common_fraction": 1.0}), iso_c.flatten().tolist(), 1e-9)
    assert float((iso_c - BASE).norm()) == pytest.approx(1.486262 * 2**0.5, abs=2e-6)


def test_golden_tsv_m() -> None:
    deltas = [torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([3, 2, 0, 0], [0, 0, 5, 1])]
    expected = torch.diag(torch.tensor([3.0, 2, 5, 1])).flatten().tolist()
    for name in ("tsv_m", "r_tsvm"):
        values = {"strength": 0.0} if name == "r_tsvm" else {}
        close(merge(name, torch.zeros(4, 4, dtype=torch.float64), deltas, values), expected, 1e-9)


def test_golden_sce_falls_back_to_equal_shares_on_small_deltas() -> None:
    small = [delta * 1e-4 for delta in DELTAS]
    reference = merge("sce", BASE, small, {"variant": "reference"}) - BASE
    exact = merge("sce", BASE, DELTAS, {"variant": "reference"}) - BASE
    torch.testing.assert_close(reference * 1e4, exact, atol=1e-8, rtol=0)
    mergekit = merge("sce", BASE, small, {}) - BASE
    close(mergekit[0, :1] * 1e4, [0.55], 1e-6)  # (0.8 + 0.3) / 2, not weighted by energy


def test_golden_tall_masks() -> None:
    from evomerge.merge._masked import tall_mask

    mask = tall_mask(DELTAS[0], 0.4 * sum(DELTAS), 0.4)
    assert mask.int().flatten().tolist() == [1, 1, 0, 1, 1, 1, 0, 1]


def test_golden_resta_restores_the_aligned_model() -> None:
    aligned, safety = BASE + DELTAS[0], DELTAS[1]
    compromised = aligned - safety
    merged = run("resta", compromised, [aligned, aligned - safety])
    torch.testing.assert_close(merged, aligned)


def test_golden_bfloat16_sums_are_made_in_float32() -> None:
    one, step = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([0.001], dtype=torch.bfloat16)
    values = {"weight": [0.1] * 100}
    merged = merge("task_arithmetic", one, [step * 10] * 100, values)
    assert merged.dtype == torch.float32
    assert float(merged.bfloat16()) == 1.1015625
