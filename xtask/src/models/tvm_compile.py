"""Compiles ONNX files to TVM modules, each with a manifest and its weights beside it.

    NAME.TARGET.so       code: the virtual machine's program and its kernels
    NAME.TARGET.weights  every constant of the network, in one file
    NAME.TARGET.json     what the two are: tensors, hashes, releases (docs/formats.md)

Constants become parameters of `main`, so that whoever runs the module decides where the weights lie.
One line of JSON on standard output tells the fate of each file. No GPU is needed: for one, the module
holds CUDA source, which is compiled where it is loaded.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
import warnings

import numpy
import onnx
import tvm
from tvm import relax, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.frontend.onnx import from_onnx

FORMAT = "aegis-tvm 1"
ALIGNMENT = 256
PACKAGES = ["apache-tvm", "apache-tvm-ffi", "onnx", "numpy"]
# What every GPU since 2017 has; the schedules ask for no more.
THREADS_PER_BLOCK = 1024
SHARED_MEMORY = 48 * 1024
WARP = 32
# The kinds of a loop, as TVM numbers them.
SPATIAL, REDUCTION = 0, 2

DTYPES = {
    "bool": "bool", "int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16",
    "float16": "f16", "bfloat16": "bf16", "int32": "i32", "uint32": "u32", "float32": "f32",
    "int64": "i64", "uint64": "u64", "float64": "f64",
}


class Unsupported(Exception):
    """TVM, or the way the product runs modules, has no room for this network."""


@mutator
class Lifter(PyExprMutator):
    """Turns constants into parameters; equal ones into one."""

    def __init__(self, module):
        super().__init__(module)
        self.parameters, self.values, self.known = [], [], {}

    def visit_generic_const_(self, constant):
        if not hasattr(constant.value, "numpy"):
            return constant
        value = constant.value.numpy()
        key = (str(value.dtype), value.shape, value.tobytes())
        if key not in self.known:
            self.known[key] = relax.Var(f"weight_{len(self.values)}", constant.ty)
            self.parameters.append(self.known[key])
            self.values.append(value)
        return self.known[key]


def lifted(module):
    """The module with the constants of `main` as parameters behind its inputs, and their values."""
    main = module["main"]
    lifter = Lifter(module)
    body = lifter.visit_expr(main.body)
    parameters = list(main.params) + lifter.parameters
    function = relax.Function(
        parameters, body, main.ret_ty, is_pure=main.is_pure, attrs=main.attrs
    )
    module.update_func(module.get_global_var("main"), function)
    return module, lifter.values


@mutator
class Bounder(PyExprMutator):
    """Takes of a table stay inside it: an index beyond its end means the last row.

    The importer's own mode reads whatever memory such an index points to, and indices are inputs.
    """

    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        if call.op == tvm.ir.Op.get("relax.take") and call.attrs.mode == "fast":
            table, indices = call.args
            return relax.op.take(table, indices, axis=call.attrs.axis, mode="clip")
        return call


def bounded(module):
    variable = module.get_global_var("main")
    module.update_func(variable, Bounder(module).visit_expr(module["main"]))
    return module


def with_own_outputs(module):
    """The module with a copy for every output that is an input itself, or another output again.

    TVM passes such a tensor through. Whoever calls wants every output in memory of its own.
    """
    main = module["main"]
    values = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
    result = values.get(main.body.body, main.body.body)
    fields = list(result.fields) if isinstance(result, relax.Tuple) else [main.body.body]
    seen = set(main.params)
    shared = []
    for field in fields:
        shared.append(field in seen)
        seen.add(field)
    if not any(shared):
        return module
    builder = relax.BlockBuilder(module)
    with builder.function("own", main.params):
        with builder.dataflow():
            for block in main.body.blocks:
                for binding in block.bindings:
                    builder.emit_normalized(binding)
            fields = [
                builder.emit_output(field) if isinstance(field, relax.DataflowVar) else field
                for field in fields
            ]
        # Behind the dataflow block, within which a copy would become a view again.
        own = [
            builder.emit_te(topi.identity, field) if copied else field
            for field, copied in zip(fields, shared)
        ]
        builder.emit_func_output(relax.Tuple(own) if len(own) > 1 else own[0])
    module = builder.get()
    function = module["own"].with_attrs(main.attrs)
    module.update_func(module.get_global_var("main"), function)
    del module[module.get_global_var("own")]
    return module


@tvm.transform.module_pass(opt_level=0, name="SumOutside")
class SumOutside:
    """For processors, which get no schedule from TVM: sums outside the innermost spatial loop.

    As written, a convolution sums in its innermost loop, which no compiler may turn into vector
    instructions since floating-point addition is not associative. With the spatial loop inside, it
    does, and every sum keeps its order.
    """

    def transform_module(self, module, _context):
        for name, function in module.functions.items():
            if not isinstance(function, tirx.PrimFunc):
                continue
            schedule = tvm.s_tir.Schedule(function)
            for block in schedule.get_child_blocks(schedule.get_sblock("root")):
                self.reorder(schedule, block)
            module.update_func(name, schedule.mod["main"])
        return module

    @staticmethod
    def reorder(schedule, block):
        loops = schedule.get_loops(block)
        kinds = [axis.iter_type for axis in schedule.get(block).iter_vars]
        if len(loops) != len(kinds) or set(kinds) != {SPATIAL, REDUCTION}:
            return
        spatial = [loop for loop, kind in zip(loops, kinds) if kind == SPATIAL]
        sums = [loop for loop, kind in zip(loops, kinds) if kind == REDUCTION]
        schedule.reorder(*spatial[:-1], *sums, spatial[-1])
        schedule.decompose_reduction(block, sums[0])


def target_of(name, cpu):
    host = {"kind": "llvm", "mcpu": cpu}
    if name == "llvm":
        return tvm.target.Target(host)
    gpu = {
        "kind": "cuda",
        "arch": name,
        "max_threads_per_block": THREADS_PER_BLOCK,
        "max_shared_memory_per_block": SHARED_MEMORY,
        "thread_warp_size": WARP,
    }
    return tvm.target.Target(gpu, host=host)


def lowered(module, target):
    """The module ready for code generation, and its weights."""
    on_gpu = target.kind.name == "cuda"
    backend = relax.backend.cuda.pipeline if on_gpu else relax.backend.cpu_generic.pipeline
    early = backend.library_dispatch_passes(target) + backend.legalize_passes(target)
    # Behind the folding of constants, which needs them, and before operators are fused over them.
    cut = [step.info.name for step in early].index("FuseOps")
    run = tvm.transform.Sequential
    with target:
        module = run(early[:cut])(bounded(module))
        module, weights = lifted(module)
        module = with_own_outputs(module)
        module = run(early[cut:])(module)
        if not on_gpu:
            module = SumOutside()(module)
        late = backend.dataflow_lower_passes(target) + backend.finalize_passes(target)
        return run(late)(module), weights


def tensor_of(value):
    """An input or output of an ONNX graph, as the manifest has it."""
    kind = value.type.tensor_type
    shape = []
    for axis, size in enumerate(kind.shape.dim):
        if size.WhichOneof("value") != "dim_value":
            raise Unsupported(f"dimension {axis} of `{value.name}` is dynamic ({size.dim_param})")
        shape.append(size.dim_value)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if dtype not in DTYPES:
        raise Unsupported(f"`{value.name}` has elements of type {dtype}")
    return {"name": value.name, "dtype": DTYPES[dtype], "shape": shape}


def interface(graph):
    weights = {weight.name for weight in graph.initializer}
    inputs = [tensor_of(value) for value in graph.input if value.name not in weights]
    return inputs, [tensor_of(value) for value in graph.output]


def packed(weights):
    """All weights in one piece, and where each begins."""
    data, tensors = bytearray(), []
    for value in weights:
        data.extend(bytes(-len(data) % ALIGNMENT))
        dtype, shape = DTYPES[str(value.dtype)], list(value.shape)
        tensors.append({"dtype": dtype, "shape": shape, "offset": len(data)})
        data.extend(numpy.ascontiguousarray(value).tobytes())
    return bytes(data), tensors


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def releases():
    """What a module depends on beside its source: the tools, and this program."""
    made_with = {name: importlib.metadata.version(name) for name in PACKAGES}
    made_with["script"] = sha256(pathlib.Path(__file__))
    return made_with


def is_current(manifest, wanted):
    """Whether what `manifest` describes is there, and was made of the same by the same."""
    try:
        have = json.loads(manifest.read_text())
        files = [have["module"], have["weights"]]
        same = all(sha256(manifest.parent / it["file"]) == it["sha256"] for it in files)
        return same and all(have[key] == value for key, value in wanted.items())
    except (OSError, ValueError, KeyError):
        return False


def compile_file(source, name, arguments):
    """Compiles one file unless it is compiled already; says which."""
    stem = f"{source.stem}.{name}"
    out = arguments.out
    target = {"name": name, "cpu": arguments.cpu}
    origin = {"file": source.name, "sha256": sha256(source)}
    wanted = {"format": FORMAT, "target": target, "source": origin, "made_with": releases()}
    manifest = out / f"{stem}.json"
    if is_current(manifest, wanted):
        return "kept"
    model = onnx.load(source)
    inputs, outputs = interface(model.graph)
    try:
        module = from_onnx(model, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as error:
        raise Unsupported(str(error).strip()) from error
    chosen = target_of(name, arguments.cpu)
    module, weights = lowered(module, chosen)
    if any("alloc_shape_heap" in str(function) for function in module.functions.values()):
        raise Unsupported("shapes of inner tensors depend on the data")
    built = tvm.compile(module, target=chosen, relax_pipeline=tvm.transform.Sequential([]))
    data, tensors = packed(weights)
    with tempfile.TemporaryDirectory(dir=out) as work:
        work = pathlib.Path(work)
        library, blob = work / f"{stem}.so", work / f"{stem}.weights"
        built.export_library(str(library))
        blob.write_bytes(data)
        described = wanted | {
            "module": {"file": library.name, "sha256": sha256(library)},
            "inputs": inputs,
            "outputs": outputs,
            "weights": {"file": blob.name, "sha256": sha256(blob), "tensors": tensors},
        }
        text = work / manifest.name
        text.write_text(json.dumps(described, indent=1) + "\n")
        # The manifest last: it vouches for the other two.
        for file in [library, blob, text]:
            os.replace(file, out / file.name)
    return "compiled"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--cpu", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Names are only for people from here on: the manifest keeps those of the ONNX file.
    warnings.filterwarnings("ignore", message="Renaming name")
    for source in arguments.files:
        for name in arguments.target:
            fate = {"file": source.name, "target": name}
            try:
                fate["fate"] = compile_file(source, name, arguments)
            except Unsupported as error:
                fate |= {"fate": "unsupported", "why": " ".join(str(error).split())}
            except Exception as error:  # TVM raises what it likes; the next file may fare better.
                why = f"{type(error).__name__}: {error}"
                fate |= {"fate": "failed", "why": " ".join(why.split())}
            print(json.dumps(fate), flush=True)


if __name__ == "__main__":
    sys.exit(main())
