#!/usr/bin/env python3
"""Answers of the golden models, from an implementation that is not the one under test.

The models are written by `cargo xtask models --set golden --out DIR`. Their outputs are computed
with the reference evaluator of the `onnx` package: NumPy, one operator after the other, no fusion,
no layout change. What is checked in is `golden.json`; this script is run again only when the models
change, and needs `onnx` and `numpy` (last run with onnx 1.23.2, numpy 2.4.6).

    make_golden.py DIR                 # writes golden.json beside this script
    make_golden.py DIR --check         # also compares with ONNX Runtime (needs `onnxruntime`)

The hand-computed network is not evaluated: its answer is worked out in `HAND` and compared with
what the evaluator says, so the evaluator is itself checked once.

Inputs. Element i (row-major) of a float input is
    ((i * 2654435761) mod 2^32) / 2^32 - 0.5      (computed in double, rounded once to float)
and of an integer input `i mod modulus`, with the modulus given for each input. A model with `values`
at an input takes these instead.

Comparing. `samples` holds [index, value] pairs of the flattened output. A sample agrees when
    |actual - expected| <= 1e-4 * max_abs
where `max_abs` is the largest magnitude of the whole output: an element near zero is a sum of large
terms that cancel, and has no better relative accuracy than they do.
"""

import argparse
import hashlib
import json
import pathlib
import re

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

SAMPLES = 16
TOLERANCE = 1e-4

# x W + b with x = [1 2], W = [3 -1; -2 4], b = [5 -10]:
# [1*3 + 2*-2, 1*-1 + 2*4] = [-1 7]; + b = [4 -3]; rectified: [4 0].
HAND = {"hand_mlp": {"inputs": {"x": [1.0, 2.0]}, "outputs": {"y": [4.0, 0.0]}}}

# What an integer input may hold: entries of a vocabulary, cells of a grid.
MODULUS = {"bert": {"input_ids": 100}, "pillars": {"cells": 16 * 24}}


def float_input(shape):
    """The float input of `shape`."""
    index = np.arange(np.prod(shape), dtype=np.uint64)
    hashed = (index * np.uint64(2654435761)) % np.uint64(2**32)
    return (hashed.astype(np.float64) / 2.0**32 - 0.5).astype(np.float32).reshape(shape)


def integer_input(shape, modulus):
    """The integer input of `shape`."""
    return (np.arange(np.prod(shape), dtype=np.int64) % modulus).reshape(shape)


def inputs_of(name, model):
    """Arrays for every input of `model`, and the record of how they were made."""
    arrays, records = {}, []
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        record = {"name": value.name, "shape": shape}
        if value.name in HAND.get(name, {}).get("inputs", {}):
            values = HAND[name]["inputs"][value.name]
            arrays[value.name] = np.array(values, dtype=np.float32).reshape(shape)
            record |= {"type": "f32", "values": values}
        elif tensor.elem_type == onnx.TensorProto.INT64:
            modulus = MODULUS[name][value.name]
            arrays[value.name] = integer_input(shape, modulus)
            record |= {"type": "i64", "modulus": modulus}
        else:
            arrays[value.name] = float_input(shape)
            record |= {"type": "f32"}
        records.append(record)
    return arrays, records


def record_of(name, array):
    """What is kept of one output."""
    flat = array.astype(np.float32).reshape(-1)
    # Spread over the whole, first and last included; distinct even when there are few.
    index = sorted({round(i * (flat.size - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})
    return {
        "name": name,
        "shape": list(array.shape),
        "mean": float(flat.astype(np.float64).mean()),
        "max_abs": shortest(np.abs(flat).max()),
        "samples": [[i, shortest(flat[i])] for i in index],
    }


def shortest(value):
    """A float with the fewest digits that give it back."""
    return float(str(value))


def render(document):
    """The document as JSON, a pair of numbers on one line."""
    text = json.dumps(document, indent=1)
    return re.sub(r"\[\s+([-+.e\d]+),\s+([-+.e\d]+)\s+\]", r"[\1, \2]", text) + "\n"


def reference(path, arrays):
    """Every output of the model at `path`, by name."""
    evaluator = ReferenceEvaluator(str(path))
    return dict(zip(evaluator.output_names, evaluator.run(None, arrays)))


def runtime(path, arrays):
    """The same from ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays)))


def stages_of(path):
    """The files of the same network in stages, first to last; none if it was not cut."""
    files = path.parent.glob(f"{path.stem}.stage*.onnx")
    return sorted(files, key=lambda file: int(file.stem.rsplit("stage", 1)[1]))


def chain(files, arrays, run):
    """The outputs of the last of `files`, each fed with the outputs of the one before."""
    for file in files:
        arrays = run(file, arrays)
    return arrays


def worst(expected, actual):
    """The largest difference over all outputs, relative to each output's largest magnitude."""
    assert expected.keys() == actual.keys(), (expected.keys(), actual.keys())
    return max(
        float(np.abs(actual[name] - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30))
        for name in expected
    )


def sha256(path):
    """The digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def golden(path, check):
    """The entry of the model at `path`."""
    name = path.stem
    arrays, inputs = inputs_of(name, onnx.load(path))
    outputs = reference(path, arrays)
    for output, values in HAND.get(name, {}).get("outputs", {}).items():
        assert outputs[output].reshape(-1).tolist() == values, f"{name}.{output} is not {values}"
    files = stages_of(path)
    if files:
        difference = worst(outputs, chain(files, arrays, reference))
        assert difference == 0.0, f"the stages of {name} differ from the whole by {difference}"
    if check:
        difference = worst(outputs, runtime(path, arrays))
        staged = worst(outputs, chain(files, arrays, runtime)) if files else 0.0
        print(f"{name:14} ONNX Runtime differs by {difference:.1e}, in stages by {staged:.1e}")
        assert max(difference, staged) <= TOLERANCE, name
    return {
        "name": name,
        "file": path.name,
        "sha256": sha256(path),
        "stages": [{"file": file.name, "sha256": sha256(file)} for file in files],
        "inputs": inputs,
        "outputs": [record_of(output, array) for output, array in outputs.items()],
    }


def main():
    """Writes golden.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=pathlib.Path, help="folder of the golden models")
    parser.add_argument("--check", action="store_true", help="compare with ONNX Runtime")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.models.glob("*.onnx") if ".stage" not in p.stem)
    document = {
        "made_by": f"onnx {onnx.__version__} ReferenceEvaluator, numpy {np.__version__}",
        "float_input": "((i * 2654435761) mod 2^32) / 2^32 - 0.5",
        "integer_input": "i mod modulus",
        "tolerance": TOLERANCE,
        "models": [golden(path, arguments.check) for path in paths],
    }
    target = pathlib.Path(__file__).with_name("golden.json")
    target.write_text(render(document))
    print(f"{len(paths)} models in {target.name}")


if __name__ == "__main__":
    main()
