/* What the library tells the package that opens it. */
const char *topformer_native_digest(void);

/* Of the C files that it was compiled from, as setup.py gives it. */
const char *topformer_native_digest(void) { return TOPFORMER_DIGEST; }
