// Which planted bug is switched on in this process; 0 for none. Only in binaries of the simulation:
// tests/sim/plant_mutants.py writes sources that ask.
#ifndef MILLRACE_TESTS_SIM_MUTANT_H_
#define MILLRACE_TESTS_SIM_MUTANT_H_

namespace millrace::sim {

inline int g_mutant = 0;

inline bool Mutant(int id) { return g_mutant == id; }

struct Planted {
  const char* name;
  const char* origin;  // an issue of another engine, or "own"
};
extern const Planted kPlanted[];  // number i + 1 is played as kPlanted[i]
extern const int kNumPlanted;

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_MUTANT_H_
