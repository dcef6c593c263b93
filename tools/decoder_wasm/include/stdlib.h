/* What the C files of topformer_d2/native use of it; see ../libc.c. */
#ifndef STDLIB_H
#define STDLIB_H
#include <stddef.h>
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *pointer);
void qsort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *));
#endif
