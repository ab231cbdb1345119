#!/usr/bin/env python3
"""Plants bugs into copies of the CUDA kernels, one at a time, and runs the test that has to find it.

usage: tools/cuda_mutants [--build DIR] [--jobs N] [--only TEXT | --quick | --check]

  --build DIR   a build whose tests are up to date; without it the tests are built, in build/release
  --jobs N      bugs at a time; as many as there are cores
  --only TEXT   the bugs with TEXT in their name, file or test
  --quick       the bugs of the short suite; all of them where MILLRACE_LONG is set
  --check       no bug: only whether every edit still finds its place

A bug is one edit of a source as it stands: the old text must be there exactly once, so that the table follows the
code. The copy is compiled as CMake compiles it for the emulated GPU, with every other kernel that includes it, and
linked into the test in place of the original. The bug is found if the test then fails, if the emulation names a fault,
or if the test crashes; a test that does not end, or a copy that does not compile, has found nothing. Prints a line for
each and a summary; exits with 1 if a bug was not found, with 2 for bad usage or an edit that does not match once.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE = re.search(r"usage: (.*)", __doc__)[1]
KERNELS = "kernels/cuda"
LIBRARY = "tests/cuda/libmillrace_cuda_emulated.a"  # of the build, with all kernels
TEST_SECONDS = 300  # as ctest gives each of these tests


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    file: str  # in kernels/cuda
    old: str
    new: str
    test: str
    quick: bool = False  # compiled and run within a second or two: part of the short suite


MUTANTS = [
    # ---- Attention
    Mutant("a tile is widened before all of its bytes are there", "attention.cu",
           "    SyncBlock();  // the bytes are there, and nobody works on the tile before\n", "",
           "cuda_attention_test"),
    Mutant("a tile's copies are not waited for", "attention.cu",
           "    WaitCopies<kAhead - 1>();\n", "    WaitCopies<kAhead>();\n", "cuda_attention_test"),
    Mutant("a tile's bytes are copied over those that are still read", "attention.cu",
           "return T::kDirect ? StagesFor<T>(dim) - 1 : StagesFor<T>(dim);", "return StagesFor<T>(dim);",
           "cuda_attention_test"),
    Mutant("entries are counted before all are written", "attention.cu",
           "  SyncBlock();  // what the block's threads wrote happens before what the first warp does now\n", "",
           "cuda_attention_test"),
    Mutant("two threads of a key end each other's rows", "attention.cu",
           "ShuffleXor(half == 0 ? second : first, 1)", "ShuffleXor(half == 0 ? first : second, 1)",
           "cuda_attention_test"),
    Mutant("values are weighed before their weights are there", "attention.cu",
           "        Softmax<T>(s);\n        SyncBlock();\n", "        Softmax<T>(s);\n", "cuda_attention_test"),
    Mutant("two values of eight bits are the next ones", "kv_rows.h",
           "const std::uint32_t two = block[1 + i % 32 / 2];", "const std::uint32_t two = block[2 + i % 32 / 2];",
           "cuda_attention_test"),
    Mutant("a query does not see its own position", "attention.cu",
           "- unit.partition * kKvPartition + 1;", "- unit.partition * kKvPartition;", "cuda_attention_test"),
    Mutant("the weights of a tile of values are those of the first", "attention.cu",
           "AddTile<T, kPasses>((tile - walk) * T::kKeys, dim, s, &out);", "AddTile<T, kPasses>(0, dim, s, &out);",
           "cuda_attention_test"),
    Mutant("queries are read while the kernel before writes them", "attention.cu",
           "  AwaitPrevious();\n\n  const int walk = TilesOfWalk<T>(rows);\n#pragma unroll\n"
           "  for (const Run& run : runs) StageTile<Kv, T, kStages>(p, rows, run, dim, s);\n"
           "  LoadQueries<T>(p, dim, s);\n",
           "  LoadQueries<T>(p, dim, s);\n  AwaitPrevious();\n\n  const int walk = TilesOfWalk<T>(rows);\n"
           "#pragma unroll\n  for (const Run& run : runs) StageTile<Kv, T, kStages>(p, rows, run, dim, s);\n",
           "cuda_backend_test"),
    Mutant("a part is whole one entry too early", "attention.cu",
           "partitions * rows.part - 1;", "partitions * rows.part - 2;", "cuda_attention_test"),
    Mutant("rows that repeat the last one are counted", "attention.cu",
           "if (row < rows.count && s.limits[row] > 0) {", "if (row < T::kRows && s.limits[row] > 0) {",
           "cuda_attention_test"),
    Mutant("entries of queries that see nothing are counted", "attention.cu",
           "if (row < rows.count && s.limits[row] > 0) {", "if (row < rows.count) {", "cuda_attention_test"),
    Mutant("a count of entries is left for the next kernel", "attention.cu",
           "        if (whole) *counter = 0;  // for the next kernel: nobody else of this one comes\n", "",
           "cuda_attention_test"),
    Mutant("an entry is kept where values are still read", "attention.cu",
           "  SyncBlock();                   // the sums are there, and the tiles are free\n", "",
           "cuda_attention_test"),
    Mutant("parts of the next token are merged with one's", "attention.cu",
           "const int most = room < left ? room : left;", "const int most = room;", "cuda_attention_test"),
    Mutant("the next parts are merged where these are still quantised", "attention.cu",
           "    if (whole != 0) SyncBlock();  // the space is used anew\n", "", "cuda_attention_test"),
    Mutant("tokens of a wave begin with the step's", "attention_merge.cu",
           "const int token = p.first_token + static_cast<int>(blockIdx.x);",
           "const int token = static_cast<int>(blockIdx.x);", "cuda_attention_test"),
    Mutant("a later batch of partitions is the first again", "attention_merge_block.h",
           "const float* batch_entries = heads.entries + from * heads.stride;",
           "const float* batch_entries = heads.entries;", "cuda_attention_test"),
    Mutant("maxima are chained before they are there", "attention_merge_block.h",
           "  SyncBlock();\n  for (int head = thread; head < heads; head += kThreads) {\n    float largest",
           "  for (int head = thread; head < heads; head += kThreads) {\n    float largest", "cuda_attention_test"),
    Mutant("a row is rotated before it is whole", "rope_row.h",
           "  LetNextBegin();\n  SyncWarp();\n", "  LetNextBegin();\n", "cuda_rope_append_test"),
    Mutant("a rotation turns the wrong way", "rope_row.h",
           "*b = Fma(y, cosine, x * sine);", "*b = Fma(y, cosine, -(x * sine));", "cuda_rope_append_test"),
    Mutant("every block takes the first heads", "rope_append.cu",
           "static_cast<int>(blockIdx.y) * kRowsPerBlock + half", "half", "cuda_rope_append_test"),
    # ---- Rows of activations
    Mutant("a row is squared before it is whole", "norm_row.h",
           "  SyncBlock();\n  if (works && team.warp() == 0) {",
           "  if (works && team.warp() == 0) {", "cuda_norm_test"),
    Mutant("values are quantised before they are there", "norm_row.h",
           "* weight[i];\n    }\n  }\n  SyncBlock();\n", "* weight[i];\n    }\n  }\n", "cuda_norm_test", quick=True),
    Mutant("rows are taken as they come, not by their index", "norm.cu",
           "params.row_index == nullptr ? r : params.row_index[r]", "r", "cuda_norm_test"),
    Mutant("a sum of 32 values has the wrong half", "quantize.h",
           "const int pair = sum + ShuffleXor(sum, 4);", "const int pair = sum + ShuffleXor(sum, 8);",
           "cuda_norm_test"),
    Mutant("the tree of 16 lanes meets the near ones first", "lanes16.h",
           "  lane = lane + ShuffleXor(lane, 8);\n  lane = lane + ShuffleXor(lane, 4);\n",
           "  lane = lane + ShuffleXor(lane, 4);\n  lane = lane + ShuffleXor(lane, 8);\n", "cuda_norm_test"),
    Mutant("activated values are quantised before they are there", "swiglu_row.h",
           "  LetNextBegin();\n  SyncWarp();\n", "  LetNextBegin();\n", "cuda_swiglu_test"),
    Mutant("a warp's values go where another's are", "swiglu.cu",
           "BlockShared<float>() + warp * kSwigluValues", "BlockShared<float>()", "cuda_swiglu_test", quick=True),
    Mutant("ranks beyond the eighth are the first again", "combine.h",
           "std::int64_t{first + r} * width", "std::int64_t{r} * width", "cuda_combine_test"),
    Mutant("rows that are asked for keep the sum of their experts", "norm_row.h",
           "if (params.row_index == nullptr) StoreValues<kValues>(x + i, value);",
           "StoreValues<kValues>(x + i, value);", "cuda_combine_test"),
    Mutant("a row of a tile is taken from the wrong half of its pieces", "embed.cu",
           "const int word = 2 * (dword / 4) + row / 8;", "const int word = 2 * (dword / 4) + row % 2;",
           "cuda_embed_test"),
    Mutant("the fifth bit is another sub-block's", "embed.cu",
           "PlaneByte(u.high, u.row, i % 32) >> (i / 32)) & 1", "PlaneByte(u.high, u.row, i % 32) >> (i / 64)) & 1",
           "cuda_embed_test"),
    # ---- Routing and its plan
    Mutant("every block routes the first tokens", "route.cu",
           "(blockIdx.x * blockDim.x + threadIdx.x) / kWarpSize;", "threadIdx.x / kWarpSize;", "cuda_route_test"),
    Mutant("the last block of tokens is not waited for", "router.cu",
           "(RowCount(product) + kColumns - 1) / kColumns;",
           "RowCount(product) < kColumns ? 1 : RowCount(product) / kColumns;", "cuda_router_test", quick=True),
    Mutant("half warps of a block have one expert", "router.cu",
           "* kExpertsOfBlock + half;", "* kExpertsOfBlock + half / 2;", "cuda_router_test"),
    Mutant("a row of activations is multiplied before all of it is there", "matmul_float_block.h",
           "  WaitCopies<0>();\n  SyncBlock();\n", "  WaitCopies<0>();\n", "cuda_router_test"),
    Mutant("weights of a later round are the first again", "matmul_float_block.h",
           "const bool loaded = dense && kAhead > 1 && at == 0;", "const bool loaded = dense && kAhead > 1;",
           "cuda_router_test"),
    Mutant("a chosen expert stays in the choice", "route_block.h",
           "if (kLanes16 * j + lane == expert) rank[j] = kNoRank;", "if (kLanes16 * j == expert) rank[j] = kNoRank;",
           "cuda_route_test"),
    Mutant("the later of equal experts is chosen", "route_block.h",
           "(std::uint64_t{rank} << 32) | ~static_cast<std::uint32_t>(expert);",
           "(std::uint64_t{rank} << 32) | (~static_cast<std::uint32_t>(expert) ^ 1U);", "cuda_route_test"),
    Mutant("a plan does not wait for the routing", "moe_plan.cu", "  AwaitPrevious();\n", "", "cuda_moe_plan_test"),
    Mutant("the last expert's end is not written", "moe_plan_block.h",
           "for (int e = thread; e <= experts; e += threads) params.offsets[e]",
           "for (int e = thread; e < experts; e += threads) params.offsets[e]", "cuda_moe_plan_test"),
    Mutant("rows of one expert are placed from the last back", "counting_sort.h",
           "space.starts[bin] + taken + std::popcount(before)",
           "space.starts[bin] + taken + std::popcount(same) - 1 - std::popcount(before)", "cuda_moe_plan_test"),
    Mutant("a count is used up while others read it", "counting_sort.h",
           "    const int taken = own[bin];\n    SyncWarp();\n", "    const int taken = own[bin];\n",
           "cuda_moe_plan_test"),
    # ---- Products
    Mutant("a unit is multiplied before everyone's copies are there", "matmul_tensor.cu",
           "    SyncBlock();  // ..everyone's, and everyone is done with the stage that is filled next\n", "",
           "cuda_matmul_test"),
    Mutant("a unit's copies are not waited for", "matmul_tensor.cu",
           "    WaitCopies<kStages - 2>();\n", "    WaitCopies<kStages - 1>();\n", "cuda_matmul_test"),
    Mutant("scales of activations are those of the unit two before", "matmul_tensor.cu",
           "reinterpret_cast<const float*>(stage.side[column])[u % 4];",
           "reinterpret_cast<const float*>(stage.side[column])[u % 2];", "cuda_matmul_test"),
    Mutant("scales of activations are not waited for", "matmul_vector.cu", "    WaitCopies<0>();\n", "",
           "cuda_matmul_test"),
    Mutant("a pass begins while the one before is added up", "matmul_vector.cu",
           "    if (last < units) SyncBlock();\n", "", "cuda_matmul_test"),
    Mutant("blocks of the second matrix begin with the first one's rows", "matmul_float.cu",
           "(block.index * kHalves + half) * kRows", "(static_cast<int>(blockIdx.y) * kHalves + half) * kRows",
           "cuda_matmul_test"),
    Mutant("a column that is not there is read", "matmul_float_block.h",
           "const std::int32_t column = AtMost(c, rows.count - 1);", "const std::int32_t column = c;",
           "cuda_matmul_test"),
    Mutant("the halves of a word change places", "matmul_float_block.h",
           "j % 2 == 0 ? word & 0xFFFFU : word >> 16;", "j % 2 != 0 ? word & 0xFFFFU : word >> 16;",
           "cuda_matmul_test"),
    Mutant("the highest bit of late scales is masked away", "matmul_unit.h",
           "constexpr std::uint32_t kTop2 = 0x30303030U;", "constexpr std::uint32_t kTop2 = 0x10101010U;",
           "cuda_matmul_test"),
    Mutant("sums of activations lose a bit between their halves", "matmul_unit.h",
           "msum[i] *= 64;", "msum[i] *= 32;", "cuda_matmul_test"),
    Mutant("blocks of rows forget the last expert of a group", "matmul_rows.h",
           "before += Shuffle(up_to, kWarpSize - 1);", "before += Shuffle(up_to, kWarpSize - 2);", "cuda_matmul_test"),
    Mutant("matrices of a launch have the first one's form", "matmul.cu",
           "      if (!all && params.matrices[m].form != params.matrices[first].form) continue;\n", "", "cuda_matmul_test"),
    Mutant("every block writes the sums of the first", "int8_peak.cu",
           "params.sums[blockIdx.x * blockDim.x + threadIdx.x]", "params.sums[threadIdx.x]", "cuda_int8_peak_test"),
    # ---- What follows a product in its kernel
    Mutant("a block counts before its threads have written", "last_block.h",
           "  SyncBlock();  // what the block's threads wrote happens before what the first does now\n", "",
           "cuda_tail_test"),
    Mutant("a counter stays as it is", "last_block.h",
           "      *counter = 0;   // for the next kernel: nobody else of this one comes\n", "",
           "cuda_tail_test"),
    Mutant("only the first thread knows that its block is the last", "last_block.h",
           "  return SyncBlockOr(last);\n", "  SyncBlock();\n  return last;\n", "cuda_tail_test"),
    Mutant("the last block but one goes on", "last_block.h", "== total - 1;", "== total - 2;", "cuda_tail_test"),
    Mutant("a token's sum does not wait for all of its pairs", "tail_block.h",
           "blocks * args.matrices_of_group * shape.row_blocks", "blocks * args.matrices_of_group", "cuda_tail_test"),
    Mutant("heads of q, k and v share their counters", "tail_block.h",
           "args.first_group[matrix] + group", "group", "cuda_tail_test"),
    Mutant("blocks of rows share their counters", "tail_block.h",
           "tail.counters + row_group * args.groups + args", "tail.counters + args", "cuda_tail_test"),
    Mutant("a group that is not whole waits for blocks that are not there", "tail_block.h",
           "AtMost(args.blocks[matrix] - group * args.group_blocks, args.group_blocks)", "args.group_blocks",
           "cuda_tail_test"),
    Mutant("keys are rotated as the first queries", "tail_block.h",
           "args.fused.first_head[matrix] +", "0 +", "cuda_tail_test"),
    Mutant("a row is loaded over one that is still read", "tail_block.h",
           "    SyncBlock();  // the rows may be overwritten\n", "", "cuda_tail_test"),
    # ---- Rows of 16-bit floats
    Mutant("a minimum is added", "dequantize.cu",
           "out.shift = -(scales.m[r][0]", "out.shift = (scales.m[r][0]", "cuda_dequantize_test"),
    Mutant("both halves of a block have the scale of the first", "dequantize.cu",
           "SubBlockOf<kForm>(scales, r, b, i / 2)", "SubBlockOf<kForm>(scales, r, b, 0)", "cuda_dequantize_test"),
    Mutant("neighbours keep the half that they should give", "dequantize.cu",
           "(other >> 16) | (own.word[w] & 0xFFFF0000U)", "(own.word[w] >> 16) | (other & 0xFFFF0000U)",
           "cuda_dequantize_test"),
    Mutant("what lies behind a row counts for its scale", "half_rows.cu",
           "x.at[j] = i + j < k ? x.at[j] : 0.0F;", "x.at[j] = i + j <= k ? x.at[j] : 0.0F;", "cuda_dequantize_test"),
    Mutant("a row's largest value is looked up before all warps have theirs", "half_rows.cu",
           "  SyncBlock();\n", "", "cuda_dequantize_test"),
    Mutant("a product that is added is not scaled", "half_rows.cu",
           "float v = value[j] * scale;", "float v = p.add_to != nullptr ? value[j] : value[j] * scale;",
           "cuda_dequantize_test"),
    Mutant("ties go away from zero", "bfloat16.h",
           "bits + 0x7FFFU + (upper & 1U)", "bits + 0x8000U", "cuda_dequantize_test"),
    # ---- Sampling
    Mutant("weights are summed before they are there", "sampling.cu", "  SyncWarp();\n", "", "cuda_sampling_test"),
    Mutant("only the first bias of a token is added", "sampling.cu",
           "j < change.bias.count && bias[2 * j] == token; ++j", "j == i; ++j", "cuda_sampling_test"),
    Mutant("logits below zero rank the wrong way round", "sampling_device.h",
           "return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;", "return bits | 0x80000000U;",
           "cuda_sampling_test"),
    Mutant("a list is begun anew while others read its length", "sampling_choose.cu",
           "  const int count = shared->count;\n  SyncBlock();\n", "  const int count = shared->count;\n",
           "cuda_sampling_test"),
    Mutant("a digit counts keys whose digits before are greater", "sampling_choose.cu",
           "if ((keys[i] & above) != found) continue;", "if ((keys[i] & above) < found) continue;",
           "cuda_sampling_test"),
    Mutant("a sort compares before the last exchange is done", "sampling_choose.cu",
           "          values[high] = a;\n        }\n      }\n      SyncBlock();\n",
           "          values[high] = a;\n        }\n      }\n", "cuda_sampling_test"),
]


class TableError(Exception):
    """An edit that does not match exactly once."""


def planted(mutant):
    """The text of the mutant's file with its bug."""
    text = (ROOT / KERNELS / mutant.file).read_text()
    count = text.count(mutant.old)
    if count != 1:
        raise TableError(f"{mutant.file}: '{mutant.name}' has {count} places instead of 1: {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


def included(path, seen):
    """Adds to `seen` what a file of kernels/cuda includes from there, directly or not, and itself."""
    if path.name in seen or not path.exists():
        return seen
    seen.add(path.name)
    for name in re.findall(rf'^#include "{KERNELS}/([\w.]+)"', path.read_text(), re.M):
        included(ROOT / KERNELS / name, seen)
    return seen


def compile_commands(build):
    """{file of kernels/cuda: (folder, arguments)} with which CMake compiles kernels for the emulated GPU."""
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"])
        if path.suffix == ".cu" and "millrace_cuda_emulated.dir" in entry["command"]:
            commands[path.name] = (entry["directory"], shlex.split(entry["command"]))
    return commands


def run(command, **options):
    """Runs a command; its output and errors together."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          **options)


def first_error(text):
    lines = [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines() or [""]
    return lines[0].strip()


class BuildError(Exception):
    """A copy does not compile, or cannot be linked."""


def compile_copy(kernel, command, folder):
    """Compiles a kernel file, in its copy where that is the one with the bug; returns the object."""
    directory, arguments = command
    original, copy, output = ROOT / KERNELS / kernel, folder / KERNELS / kernel, folder / f"{kernel}.o"
    arguments = list(arguments)
    arguments[arguments.index("-o") + 1] = str(output)
    if copy.exists():
        arguments[arguments.index(str(original))] = str(copy)
    # The copy of a header comes before the original. What a bug leaves unused is its own.
    done = run([arguments[0], f"-I{folder}", *arguments[1:], "-w"], cwd=directory)
    if done.returncode != 0:
        raise BuildError(f"does not compile: {first_error(done.stdout)}")
    return output


def link(build, test, objects, folder):
    """Links a test as CMake does, but with these objects before the library that has their originals."""
    commands = run(["ninja", "-C", str(build), "-t", "commands", test]).stdout.splitlines()
    command, binary = commands[-1] if commands else "", folder / test
    if command.count(f" -o {test} ") != 1 or LIBRARY not in command:
        raise BuildError(f"no command that links {test} in {build}")
    command = command.replace(f" -o {test} ", f" -o {shlex.quote(str(binary))} ")
    command = command.replace(LIBRARY, f"{shlex.join(map(str, objects))} {LIBRARY}", 1)
    done = run(command, shell=True, cwd=build)
    if done.returncode != 0:
        raise BuildError(f"cannot be linked: {first_error(done.stdout)}")
    return binary


def redness(binary):
    """How a test turns red, or None if it does not."""
    try:
        done = run([str(binary), "--gtest_fail_fast"], cwd=ROOT, timeout=TEST_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None
    failed = re.search(r"^\[  FAILED  \] (\S+?),? ", done.stdout, re.M)
    fault = re.search(r"^emulated GPU: (.*)", done.stdout, re.M)
    if done.returncode < 0:
        return f"crashed ({signal.Signals(-done.returncode).name})"
    if done.returncode == 0 or not (failed or fault):
        return None
    return f"{failed[1]} failed" if failed and not fault else f"fault: {fault[1]}"


def find(mutant, build, commands):
    """(whether the bug is found, what happened)"""
    with tempfile.TemporaryDirectory(prefix="cuda_mutant.") as name:
        folder = pathlib.Path(name)
        (folder / KERNELS).mkdir(parents=True)
        (folder / KERNELS / mutant.file).write_text(planted(mutant))
        try:
            kernels = [kernel for kernel in commands if mutant.file in included(ROOT / KERNELS / kernel, set())]
            if not kernels:
                raise BuildError("no kernel of this build is made of it")
            objects = [compile_copy(kernel, commands[kernel], folder) for kernel in kernels]
            how = redness(link(build, mutant.test, objects, folder))
        except BuildError as error:
            return False, str(error)
        return how is not None, how or "NOT FOUND"


def chosen(arguments, table):
    if arguments.only:
        return [m for m in table if any(arguments.only in text for text in (m.name, m.file, m.test))]
    if arguments.quick and not os.environ.get("MILLRACE_LONG"):
        return [m for m in table if m.quick]
    return table


def main(argv, table=None):
    table = MUTANTS if table is None else table
    parser = argparse.ArgumentParser(prog="cuda_mutants", usage=USAGE, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only")
    which.add_argument("--quick", action="store_true")
    which.add_argument("--check", action="store_true")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:
        return end.code
    if arguments.help:
        print(__doc__)
        return 0
    try:
        for mutant in table:
            planted(mutant)
    except TableError as error:
        print(f"cuda_mutants: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        print(f"cuda mutants: {len(table)} edits find their place")
        return 0
    mutants = chosen(arguments, table)
    if not mutants or arguments.jobs < 1:
        print(f"cuda_mutants: {'no such bug' if not mutants else 'no job'}; see --help", file=sys.stderr)
        return 2
    tests = sorted({mutant.test for mutant in mutants})
    build = (arguments.build or ROOT / "build/release").resolve()
    if arguments.build is None and run([str(ROOT / "tools/build"), "release", *tests]).returncode != 0:
        print("cuda_mutants: the tests cannot be built; see tools/build release", file=sys.stderr)
        return 1
    for test in tests:
        if not (build / test).exists():
            print(f"cuda_mutants: no {test} in {build}", file=sys.stderr)
            return 2
        # A test that is red without a bug finds nothing.
        if run([str(build / test)], cwd=ROOT).returncode != 0:
            print(f"cuda_mutants: {test} is red without a bug", file=sys.stderr)
            return 1
    found, commands = 0, compile_commands(build)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (red, what) in zip(mutants, pool.map(lambda m: find(m, build, commands), mutants)):
            found += red
            print(f"{'red' if red else '---'}  {mutant.file}: {mutant.name}: {what}", flush=True)
    print(f"cuda mutants: {found} of {len(mutants)} turned a test red")
    return 0 if found == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
