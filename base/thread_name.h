// Names of threads, as `top -H`, gdb and /proc show them. Thread-safe.
#ifndef MILLRACE_BASE_THREAD_NAME_H_
#define MILLRACE_BASE_THREAD_NAME_H_

namespace millrace {

// What threads of ours that compute are called; the others serve.
inline constexpr char kEngineThread[] = "engine";
inline constexpr char kWorkerThread[] = "worker";

// Names the calling thread. REQUIRES: at most 15 bytes.
void NameThisThread(const char* name);

}  // namespace millrace

#endif  // MILLRACE_BASE_THREAD_NAME_H_
