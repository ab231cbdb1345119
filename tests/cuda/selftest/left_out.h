// The tests of tests/cuda that have no meaning on a real GPU: they plan faults, or a machine that
// is not there. One that does not exist ends the self test.
#ifndef MILLRACE_TESTS_CUDA_SELFTEST_LEFT_OUT_H_
#define MILLRACE_TESTS_CUDA_SELFTEST_LEFT_OUT_H_

#include <array>
#include <string_view>

namespace millrace::selftest {

inline constexpr std::array<std::string_view, 15> kLeftOut = {
    "CudaBackend.ALayerOfFewTokensIsSixKernelsAndFiveWhereItIsDense",
    "CudaBackend.ChainsKernelsOnlyWhereTheirCodeWaitsForTheOneBefore",
    "CudaBackend.GivesAHungStepUpAfterItsLimitAndEndsWithoutIt",
    "CudaBackend.IsDrivenByAnotherThreadThanTheOneThatLoaded",
    "CudaBackend.NamesACacheThatItsGpuHasTooLittleSharedMemoryFor",
    "CudaBackend.PassesOnEveryFaultOfTheDevice",
    "CudaBackend.SaysWhatDoesNotFitIntoTheDevicesMemory",
    "CudaBackend.SaysWhyThereIsNoDevice",
    "CudaCublas.EveryFailureIsOneOfTheDevice",
    "CudaCublas.GivesItsHandleBack",
    "CudaCublas.RefusesAVersionThatIsTooOld",
    "CudaCublasModel.AFailureOfTheLibraryIsTheEndOfTheDevice",
    "CudaCublasModel.ALargeStepTakesNoMemoryThatWasNotPlanned",
    "CudaCublasModel.EndsOnItsOwnDeviceWhateverThreadEndsIt",
    "CudaLibraryProducts.SayWhyTheLibraryFailed",
};

}  // namespace millrace::selftest

#endif  // MILLRACE_TESTS_CUDA_SELFTEST_LEFT_OUT_H_
