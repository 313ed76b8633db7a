/* Task vectors: what is kept of each, and what is merged of them. */

#ifndef STOCKPOT_VECTORS_H
#define STOCKPOT_VECTORS_H

#include "blocks.h"

#define BINS 65536     /* of the 16 high bits of 31 bits of magnitude */
#define LOW_BINS 32768 /* of the 15 low ones */
#define COPIES 4       /* counters in turn: most differences are 0, and a counter waits for its last increment */

#endif
