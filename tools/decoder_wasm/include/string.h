/* What the C files of topformer_d2/native use of it; see ../libc.c. */
#ifndef STRING_H
#define STRING_H
#include <stddef.h>
void *memcpy(void *target, const void *source, size_t size);
void *memmove(void *target, const void *source, size_t size);
void *memset(void *target, int value, size_t size);
#endif
