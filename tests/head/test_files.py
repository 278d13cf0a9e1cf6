"""Loading: FLAME pickles and npz files, the embedded file, and everything that must be refused."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from made_flame import flame_arrays
from reference import pose as reference_pose

from ffavatar.errors import InputError
from ffavatar.head import embedded, load_base_mesh, load_head
from ffavatar.head.flame import read_flame
from ffavatar.types import HeadParams


@pytest.fixture(scope="module")
def flame() -> dict:
    return flame_arrays()


@pytest.fixture(scope="module")
def flame_pickle(flame, tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    path.write_bytes(pickle.dumps(flame, protocol=2))
    return path


def test_flame_pickle_against_reference(flame, flame_pickle):
    head = load_head(flame_pickle)
    assert head.edition == "flame2023" and "non-commercial" in head.licence
    assert (head.identity_size, head.expression_size, len(head.faces)) == (300, 100, 9976)
    rng = np.random.default_rng(1)
    identity, expression = rng.normal(size=300), rng.normal(size=100)
    rotations, translation = rng.normal(0, 0.3, (5, 3)), rng.normal(0, 0.1, 3)
    rows = [torch.from_numpy(r[None]).float() for r in (rotations[0], translation, *rotations[1:], expression)]
    posed = head.pose(*head.neutral(torch.from_numpy(identity[None]).float()), HeadParams(*rows))
    arrays = types.SimpleNamespace(
        v_template=flame["v_template"], shapedirs=flame["shapedirs"][..., :300], expdirs=flame["shapedirs"][..., 300:],
        posedirs=flame["posedirs"], J_regressor=flame["J_regressor"].toarray(), lbs_weights=flame["weights"],
    )  # fmt: skip
    wanted = reference_pose(arrays, identity, expression, rotations, translation)
    assert np.abs(posed.vertices[0].numpy() - wanted).max() < 2e-6
    assert len(head.surface(1)) == 20_018
    with pytest.raises(InputError, match="no landmark correspondence"):
        head.landmarks(posed.vertices)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_pickle_protocol(flame, tmp_path, protocol):
    path = tmp_path / "generic_model.pkl"
    small = {k: v.astype(np.float32) if k in ("shapedirs", "posedirs") else v for k, v in flame.items()}
    if protocol == 0:
        small["shapedirs"] = np.zeros((5023, 3, 400), np.float32)  # text protocol: keep the file small
        small["posedirs"] = np.zeros((5023, 3, 36), np.float32)
    path.write_bytes(pickle.dumps(small, protocol=protocol))
    arrays = read_flame(path)
    assert arrays.edition == "flame2020"
    assert np.allclose(arrays.J_regressor, flame["J_regressor"].toarray(), atol=1e-7)
    assert np.allclose(arrays.v_template, flame["v_template"])


def test_chumpy_wrapped_arrays(flame, tmp_path, monkeypatch):
    """FLAME 2020 and 2023 wrap the bases in chumpy objects; only the wrapped array is taken."""

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["chumpy.ch"].Ch = Ch
    path = tmp_path / "flame2023_no_jaw.pkl"
    path.write_bytes(pickle.dumps({**flame, "shapedirs": Ch(flame["shapedirs"])}, protocol=2))
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.delitem(sys.modules, name)
    arrays = read_flame(path)
    assert arrays.edition == "flame2023_no_jaw"
    assert np.allclose(arrays.expdirs, flame["shapedirs"][..., 300:], atol=1e-7)


def test_npz_with_flame_keys(flame, tmp_path):
    dense = {k: v for k, v in flame.items() if k not in ("J_regressor", "posedirs", "bs_style", "bs_type")}
    dense["shapedirs"] = dense["shapedirs"].astype(np.float32)
    path = tmp_path / "FLAME2023_Open.npz"
    np.savez(path, J_regressor=flame["J_regressor"].toarray(), **dense)
    head = load_head(path)
    assert head.edition == "flame2023_open" and "CC-BY-4.0" in head.licence
    assert not head.posedirs.any()  # this file has none
    assert load_head(path, edition="flame2020").edition == "flame2020"
    with pytest.raises(InputError, match="unknown FLAME edition"):
        load_head(path, edition="flame1999")


def test_open_is_told_by_its_own_key(flame, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({**flame, "supr_expression_metadata": {"n_expr": 100}}, protocol=4))
    assert read_flame(path).edition == "flame2023_open"
    path.write_bytes(pickle.dumps(flame, protocol=4))
    assert read_flame(path).edition == "flame_unknown"


class Payload:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "make",
    [
        lambda marker: Payload(os.system, f"touch {marker}"),
        lambda marker: Payload(open, str(marker), "w"),
        lambda marker: Payload(eval, f"open({str(marker)!r}, 'w')"),
        lambda marker: {"v_template": Payload(exec, f"open({str(marker)!r}, 'w')")},
        lambda marker: Payload(np.fromfile, str(marker)),
        lambda marker: Payload(np.load, str(marker)),
        lambda marker: Payload(types.SimpleNamespace),
    ],
)
def test_malicious_pickle_is_refused_and_does_nothing(tmp_path, make):
    marker, path = tmp_path / "marker", tmp_path / "flame2023.pkl"
    path.write_bytes(pickle.dumps(make(marker)))
    with pytest.raises(InputError, match="is not a FLAME pickle"):
        load_head(path)
    assert not marker.exists()


def test_malformed_flame_files(flame, tmp_path):
    path = tmp_path / "flame2023.pkl"
    good = pickle.dumps({**flame, "shapedirs": flame["shapedirs"].astype(np.float32)}, protocol=4)
    cases = {
        "is not a FLAME pickle": [b"", b"not a pickle", good[: len(good) // 2], good[200:]],
        "does not hold a dictionary": [pickle.dumps([1, 2, 3])],
        "lacks": [pickle.dumps({"f": flame["f"]})],
        "shapedirs has shape": [pickle.dumps({**flame, "shapedirs": flame["shapedirs"][..., :150]})],
        "v_template is not an array": [pickle.dumps({**flame, "v_template": "text"})],
        "not finite": [pickle.dumps({**flame, "weights": flame["weights"] * np.nan})],
        "do not sum to one": [pickle.dumps({**flame, "weights": flame["weights"] * 2})],
        "points outside": [pickle.dumps({**flame, "f": flame["f"] + 1000})],
        "the joints are not": [pickle.dumps({**flame, "kintree_table": np.zeros((2, 4), np.int64)})],
    }
    for message, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(InputError, match=message):
                load_head(path)


def test_damaged_npz_is_refused(tmp_path):
    whole = (embedded.DATA / "embedded.npz").read_bytes()
    path = tmp_path / "head.npz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + b"0" * 100, bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"head\.npz"):
            load_head(path)
    np.savez(path, v_template=np.zeros((3, 3)))
    with pytest.raises(InputError, match="lacks parts"):
        load_head(path)
    np.savez(path, v_template=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        load_head(path)
    with pytest.raises(InputError, match="is not a file"):
        load_head(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_head(tmp_path / "missing.pkl")


def test_base_mesh_belongs_to_the_head():
    head, base = load_head(), load_base_mesh()
    assert base.vertices.shape == (19158, 3)
    bound = (head.mh_vertex >= 0) & (head.v_template[:, 1] > -0.1)
    gap = base.vertices[head.mh_vertex[bound].numpy()] - head.v_template[bound].numpy()
    assert np.abs(gap).max() < 2e-4
    assert base.helper_shapedirs.shape == (len(base.helper_vertex), 3, 100)
    assert base.helper_expdirs.shape == (len(base.helper_vertex), 3, head.expression_size)
    assert np.allclose(base.helper_weights.sum(1), 1)
