/* What the C files of topformer_d2/native use of it; see ../libc.c. */
#ifndef MATH_H
#define MATH_H
#define INFINITY __builtin_inff()
#define fabsf(x) __builtin_fabsf(x)
double log(double x);
float logf(float x);
float expf(float x);
#endif
