// Which planted bug is switched on in this process; 0 for none. Only in binaries of the simulation:
// tests/sim/plant_mutants.py writes sources that ask.
#ifndef MILLRACE_TESTS_SIM_MUTANT_H_
#define MILLRACE_TESTS_SIM_MUTANT_H_

namespace millrace::sim {

inline int g_mutant = 0;

inline bool Mutant(int id) { return g_mutant == id; }

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_MUTANT_H_
