/* One instruction set, for both kinds of numbers. */
#define WIDE 0
#include "real.h"
#undef WIDE
#define WIDE 1
#include "real.h"
#undef WIDE
#undef SET
#undef TARGET
#undef BYTES
#undef PRODUCT_ROWS
#undef SUMS_ROWS
