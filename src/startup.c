/* What must be there before the program starts, and therefore cannot be Rust.
 *
 * - A check of the processor, before the initializers of the database, which are compiled for processors with SSE4.2.
 * - arc4random, for the C++ library, which is linked statically: that of glibc exists since 2.36, and this program runs with
 *   glibc 2.34.
 */

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

uint32_t arc4random(void) {
    uint32_t value;
    if (getentropy(&value, sizeof value) != 0) {
        abort();
    }
    return value;
}

#ifdef __x86_64__
#include <cpuid.h>

/* The instructions that .cargo/config.toml lets the compiler use. The priority is the first that programs may have. */
__attribute__((constructor(101))) static void require_processor(void) {
    const unsigned required = bit_PCLMUL | bit_SSSE3 | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT;
    unsigned eax, ebx, ecx = 0, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & required) == required) {
        return;
    }
    static const char message[] = "cairn: this processor lacks SSE4.2 or PCLMULQDQ, which Cairn needs; "
                                  "x86-64 processors have them since 2011\n";
    ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
    (void)ignored;
    _exit(3);
}
#endif
