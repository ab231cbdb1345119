#!/usr/bin/env python3
"""What tools/build_cuda_peer packs, on small programs (llama.cpp itself takes hours and a CUDA toolkit), and what a bundle has room for."""
import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# gpu_bundle says what a bundle wants of a peer.
PROGRAMS = ["llama-bench", "llama-batched-bench"]


def load_tool(name="build_cuda_peer"):
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class BuildCudaPeer(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.binaries, self.cuda, self.machine = (self.folder / name for name in ("bin", "cuda", "machine"))
        for folder in (self.binaries, self.cuda / "lib64", self.machine):
            folder.mkdir(parents=True)

    def compile(self, path, text, *uses, shared=True):
        source = self.folder / "source.c"
        source.write_text(text)
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{path.name}"] if shared else ["-Wl,--no-as-needed"]
        # Indirect needs are the loader's affair.
        subprocess.run(["cc", "-g", source, *flags, "-Wl,--allow-shlib-undefined", "-Wl,-rpath,$ORIGIN", "-o", path, *uses], check=True)

    def test_the_folder_has_what_the_programs_share_and_says_what_the_machine_must_have(self):
        cublas, cudart = self.machine / "libcublas.so.13", self.cuda / "lib64/libcudart.so.13"
        base, cuda = self.binaries / "libggml-base.so.0", self.binaries / "libggml-cuda.so.0"
        self.compile(cublas, "int product(void) { return 7; }")
        self.compile(cudart, "int start(void) { return 30; }")
        self.compile(base, "int base(void) { return 500; }")
        self.compile(cuda, "int base(void), start(void), product(void); int all(void) { return base() + start() + product(); }",
                     base, cudart, cublas)
        for name in PROGRAMS:
            self.compile(self.binaries / name, "#include <stdio.h>\nint all(void); int main(void) { printf(\"%d\", all()); }", cuda,
                         shared=False)
        out = self.folder / "out"
        elsewhere = load_tool().pack(self.binaries, self.cuda, out)
        self.assertEqual({path.name for path in out.iterdir()}, {*PROGRAMS, base.name, cuda.name, cudart.name})
        self.assertIn("libcublas.so.13", elsewhere)
        self.assertFalse({base.name, cuda.name, cudart.name} & set(elsewhere))
        for name in PROGRAMS:  # where the build is not
            self.assertLess((out / name).stat().st_size, (self.binaries / name).stat().st_size)
        for path in (*self.binaries.iterdir(), cudart):
            path.unlink()
        for name in PROGRAMS:
            done = subprocess.run([out / name], capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(self.machine)})
            self.assertEqual((done.stdout, done.stderr), ("537", ""))

    def test_a_peer_that_is_too_large_beside_our_programs_is_carried_after_them(self):
        bundle = load_tool("gpu_bundle")
        for own, peer, said in ((25, 30, None), (25, 48, "for one go"), (25, 61, SystemExit), (61, 0, SystemExit)):
            with self.subTest(own=own, peer=peer), contextlib.redirect_stdout(io.StringIO()) as out:
                if said is SystemExit:
                    self.assertRaisesRegex(SystemExit, "too large", bundle.judge, own << 20, peer << 20, 3 << 20)
                else:
                    bundle.judge(own << 20, peer << 20, 3 << 20)
                    self.assertEqual("for one go" in out.getvalue(), said is not None)
                    self.assertNotIn("over 64 MiB", out.getvalue())

    def test_what_the_compiler_said_of_a_failure_is_shown(self):
        (self.folder / "CMakeLists.txt").write_text('project(p NONE)\ncmake_minimum_required(VERSION 3.20)\nadd_custom_target(llama-bench '
                                                    'COMMAND sh -c "echo nvcc is not amused; exit 1")\nadd_custom_target(llama-batched-bench)\n')
        subprocess.run(["cmake", "-S", self.folder, "-B", self.folder / "build", "-G", "Ninja"], check=True, capture_output=True)
        with self.assertRaisesRegex(SystemExit, "nvcc is not amused"):
            load_tool().build(self.folder / "build", 1)


if __name__ == "__main__":
    unittest.main()
