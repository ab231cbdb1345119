"""The tests of the dispatch, run on a binary whose dispatch is flipped, must fail.

FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_002: usage: dispatch_mutation_turns_red.py FLIPPED_BINARY
"""
import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).with_name("qwen3_moe_serve_dispatch_v1.py")


def main():
    environment = dict(os.environ, MILLRACE_BINARY=sys.argv[1])
    done = subprocess.run([sys.executable, TESTS, "Dispatch.test_002_a_moe_model_never_takes_the_dense_path"],
                          env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    if done.returncode == 0:
        sys.exit("the dispatch is flipped and no test noticed")
    # Red for the right reason: the dense path asks for tensors that a MoE file does not have.
    if "ffn" not in done.stderr:
        sys.exit("red, but not because of the dispatch")


if __name__ == "__main__":
    main()
