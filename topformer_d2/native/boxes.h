/* The boxes of a RetinaNet's raw outputs: decoding at its anchors, and NMS. C99, libc alone.
 *
 *     cc -std=c99 -O3 -c boxes.c
 *
 * The numbers in the settings are those of an exported file's description, `decoding`.
 */
#ifndef TOPFORMER_BOXES_H
#define TOPFORMER_BOXES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t classes, levels, anchors;   /* `anchors`: at each position */
    const int32_t *heights, *widths;    /* (levels): of the outputs, finest first */
    const float *strides;               /* (levels), in pixels of the network's input */
    const float *cell_anchors;          /* (levels, anchors, 4): x0, y0, x1, y1 around a position */
    float offset;                       /* of a position from its corner, in strides */
    float box_weights[4];               /* by which the deltas are divided */
    float scale_clamp;                  /* dw and dh, divided, are at most this */
    float score_threshold;              /* scores above it count, */
    int32_t topk;                       /* of each level so many at most */
    float nms_threshold;                /* IoU above which the worse box of a class is dropped */
    int32_t max_detections;
} topformer_box_settings;

/* A copy of the settings, and the memory for the work: nothing is allocated after it. */
typedef struct topformer_box_plan topformer_box_plan;

/* NULL where a setting does not fit, or where there is no memory. */
topformer_box_plan *topformer_box_plan_create(const topformer_box_settings *settings);
void topformer_box_plan_free(topformer_box_plan *plan);

/* The boxes of an image, best first. A plan serves one call at a time.
 *
 * logits:  (levels) pointers to (anchors * classes, height, width).
 * deltas:  (levels) pointers to (anchors * 4, height, width).
 * boxes:   (max_detections, 4): x0, y0, x1, y1 in pixels of the network's input, not clipped to it.
 * scores:  (max_detections).
 * classes: (max_detections).
 *
 * The number of boxes; -1 where a logit or delta is NaN or infinite.
 */
int32_t topformer_find_boxes(topformer_box_plan *plan, const float *const *logits,
                             const float *const *deltas, float *boxes, float *scores,
                             int32_t *classes);

#ifdef __cplusplus
}
#endif
#endif
