// millrace-bench: the bench command by itself, for machines that have little but a GPU. It links no
// gRPC; the CUDA backend is linked in (MILLRACE_STATIC), or its module lies beside it.
#include "cli/commands.h"

int main(int argc, char** argv) { return millrace::cli::RunBench(argc, argv); }
