/* The few functions of libc that the C files of topformer_d2/native need, for WebAssembly.
 *
 * A page has an instance of the module for each size of image and drops it with its memory, so
 * nothing is ever freed. The math is the browser's, in double precision, rounded to float32.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 1 << 16, ALIGNMENT = 16 };

extern unsigned char __heap_base; /* the linker's: where the memory is free from */

__attribute__((import_module("math"), import_name("exp"))) double imported_exp(double x);
__attribute__((import_module("math"), import_name("log"))) double imported_log(double x);

/* Of the sources that this was compiled from, as the build gives it. */
const char *topformer_decoder_digest(void) { return TOPFORMER_DIGEST; }

double log(double x) { return imported_log(x); }
float logf(float x) { return (float)imported_log((double)x); }
float expf(float x) { return (float)imported_exp((double)x); }

/* Zeros, as new memory is. */
void *malloc(size_t size) {
    static uintptr_t next;
    uintptr_t start = next ? next : (uintptr_t)&__heap_base, end;
    size_t pages = __builtin_wasm_memory_size(0);
    start = (start + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    end = start + size;
    if (end < start) return NULL;
    if (end > pages * PAGE) {
        size_t missing = (end - pages * PAGE + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, missing) == (size_t)-1) return NULL;
    }
    next = end;
    return (void *)start;
}

void *calloc(size_t count, size_t size) {
    return size && count > SIZE_MAX / size ? NULL : malloc(count * size);
}

void free(void *pointer) { (void)pointer; }

/* Instructions of WebAssembly's bulk memory. */
void *memcpy(void *target, const void *source, size_t size) {
    return __builtin_memcpy(target, source, size);
}
void *memmove(void *target, const void *source, size_t size) {
    return __builtin_memmove(target, source, size);
}
void *memset(void *target, int value, size_t size) { return __builtin_memset(target, value, size); }

static void swap(unsigned char *a, unsigned char *b, size_t size) {
    for (; size; size--, a++, b++) {
        unsigned char kept = *a;
        *a = *b;
        *b = kept;
    }
}

/* Heapsort: no two of the items that it is called for are equal. */
void qsort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *)) {
    unsigned char *all = items;
    size_t left = count / 2, end = count, parent, child;
    while (end > 1) {
        if (left) parent = --left;
        else {
            swap(all, all + --end * size, size);
            parent = 0;
        }
        for (; (child = 2 * parent + 1) < end; parent = child) {
            if (child + 1 < end && compare(all + child * size, all + (child + 1) * size) < 0)
                child++;
            if (compare(all + parent * size, all + child * size) >= 0) break;
            swap(all + parent * size, all + child * size, size);
        }
    }
}
