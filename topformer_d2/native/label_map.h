/* The label map of bilinearly resized logits, without resizing them. C99, no dependency but libc.
 *
 *     cc -std=c99 -O3 -c label_map.c
 *
 * What it gives is the argmax of logits resized as PyTorch's interpolate does (mode "bilinear",
 * align_corners=False), once or twice in a row. Of equal logits the lowest class is taken.
 */
#ifndef TOPFORMER_LABEL_MAP_H
#define TOPFORMER_LABEL_MAP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t classes;                    /* 1 to 65536 */
    int32_t height, width;              /* of the logits */
    int32_t input_height, input_width;  /* the network input's, to which the logits are resized
                                           first; 0, 0: straight to the label map's size */
    int32_t valid_height, valid_width;  /* the part of the input, from the upper left corner, that
                                           is then resized, the rest being padding; 0, 0: all */
    int32_t label_height, label_width;  /* of the label map */
} topformer_label_sizes;

/* What topformer_label_map and topformer_label_rows return. */
enum {
    TOPFORMER_OK = 0,
    TOPFORMER_NOT_FINITE = 1, /* a logit is NaN or infinite; the label map is not complete */
    TOPFORMER_BAD_RANGE = 2   /* the rows are not there */
};

/* All that depends on sizes alone, and the memory for the work: nothing is allocated after it. */
typedef struct topformer_label_plan topformer_label_plan;

/* NULL where a size does not fit, or where there is no memory. */
topformer_label_plan *topformer_label_plan_create(const topformer_label_sizes *sizes);
void topformer_label_plan_free(topformer_label_plan *plan);

/* The class with the largest resized logit at each pixel. A plan serves one call at a time: threads
 * have a plan each.
 *
 * logits:     (classes, height, width), finite, of magnitudes below 1e38.
 * labels:     (label_height, label_width), uint8_t up to 256 classes, else uint16_t.
 * confidence: NULL, or (label_height, label_width): the softmax probability of each pixel's label,
 *             to within 1e-4.
 */
int topformer_label_map(topformer_label_plan *plan, const float *logits, void *labels,
                        float *confidence);

/* The same for the label map's rows first to stop - 1, where not all logits are at hand:
 * `logits` has the rows from `logits_row` on, (classes, logits_rows, width). `labels` and
 * `confidence` are those of the whole map.
 */
int topformer_label_rows(topformer_label_plan *plan, const float *logits, int32_t logits_row,
                         int32_t logits_rows, int32_t first, int32_t stop, void *labels,
                         float *confidence);

/* The first and the last row of logits that the rows first to stop - 1 are made of. */
int topformer_label_rows_needed(const topformer_label_plan *plan, int32_t first, int32_t stop,
                                int32_t *logits_first, int32_t *logits_last);

#ifdef __cplusplus
}
#endif
#endif
