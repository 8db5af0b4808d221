/* Translation tables, of either stage. */
#ifndef MMU_H
#define MMU_H

#include <stdint.h>

#define ENTRIES 512

#define VALID 1ull
#define TABLE 3ull
#define ATTR_INDEX(n) ((uint64_t)(n) << 2)
#define AP_USER (1ull << 6) /* EL0 too; RES1 at EL2 */
#define AP_READ_ONLY (1ull << 7)
#define INNER_SHAREABLE (3ull << 8)
#define ACCESS_FLAG (1ull << 10)
#define PRIVILEGED_XN (1ull << 53)
#define XN (1ull << 54)

#define INDEX_DEVICE 0 /* slots of the MAIR that the guest's own mappings use */
#define INDEX_NON_CACHEABLE 4
#define INDEX_WRITE_BACK 6

#define SCTLR_M (1ull << 0)
#define SCTLR_C (1ull << 2)
#define SCTLR_I (1ull << 12)

typedef uint64_t table[ENTRIES] __attribute__((aligned(4096)));

#endif
