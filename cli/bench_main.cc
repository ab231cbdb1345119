// millrace-bench: the bench command by itself, for machines that have nothing but a GPU. It links
// no gRPC; the CUDA module lies beside it.
#include "cli/commands.h"

int main(int argc, char** argv) { return millrace::cli::RunBench(argc, argv); }
