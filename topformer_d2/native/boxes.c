/* See boxes.h. */
#include "boxes.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 256 }; /* logits that are compared with the threshold at a time */

typedef struct {
    float logit;
    int32_t class_index;
    size_t place; /* in the level's logits, then among all candidates */
    float box[4];
} candidate;

struct topformer_box_plan {
    topformer_box_settings settings;
    int32_t *heights, *widths;
    float *strides, *cell_anchors;
    candidate *candidates; /* (levels * topk) */
    int32_t *kept;         /* (max_detections) */
};

/* Whether `a` goes before `b`: by its logit, of equal ones the first. */
static int is_better(const candidate *a, const candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->place < b->place);
}

static int compare(const void *a, const void *b) { return is_better(a, b) ? -1 : 1; }

/* Put a candidate into a heap whose worst one is at its top, where it goes in place of that. */
static void replace_worst(candidate *heap, int32_t count, candidate new_one) {
    int32_t parent = 0, child;
    while ((child = 2 * parent + 1) < count) {
        if (child + 1 < count && is_better(&heap[child], &heap[child + 1])) child++;
        if (!is_better(&new_one, &heap[child])) break;
        heap[parent] = heap[child];
        parent = child;
    }
    heap[parent] = new_one;
}

/* Put a candidate into such a heap beside the others. */
static void add(candidate *heap, int32_t count, candidate new_one) {
    int32_t child = count, parent;
    while (child > 0 && is_better(&heap[parent = (child - 1) / 2], &new_one)) {
        heap[child] = heap[parent];
        child = parent;
    }
    heap[child] = new_one;
}

static int are_finite(const float *values, size_t count) {
    size_t start, i;
    for (start = 0; start < count; start += BLOCK) {
        size_t stop = count - start < BLOCK ? count : start + BLOCK;
        int32_t wrong = 0;
        for (i = start; i < stop; i++) wrong += !(fabsf(values[i]) <= FLT_MAX);
        if (wrong) return 0;
    }
    return 1;
}

/* The best candidates of a level, in any order; their number. */
static int32_t find_best(const float *logits, size_t total, float threshold, int32_t most,
                         candidate *heap) {
    size_t start, i;
    int32_t count = 0;
    for (start = 0; start < total; start += BLOCK) {
        size_t stop = total - start < BLOCK ? total : start + BLOCK;
        int32_t above = 0;
        for (i = start; i < stop; i++) above += logits[i] > threshold;
        if (!above) continue;
        for (i = start; i < stop; i++) {
            candidate found = {0};
            if (!(logits[i] > threshold)) continue;
            found.logit = logits[i];
            found.place = i;
            if (count < most) add(heap, count++, found);
            else if (is_better(&found, heap)) replace_worst(heap, count, found);
        }
    }
    return count;
}

/* The box and the class of a candidate. */
static void decode(const topformer_box_plan *plan, int32_t level, const float *deltas,
                   candidate *found) {
    const topformer_box_settings *s = &plan->settings;
    size_t width = (size_t)plan->widths[level], positions = (size_t)plan->heights[level] * width;
    size_t position = found->place % positions, row = found->place / positions;
    size_t anchor = row / (size_t)s->classes;
    const float *cell = plan->cell_anchors + ((size_t)level * (size_t)s->anchors + anchor) * 4;
    int side;
    found->class_index = (int32_t)(row % (size_t)s->classes);
    for (side = 0; side < 2; side++) { /* x, then y */
        size_t index = side ? position / width : position % width;
        float middle = ((float)index + s->offset) * plan->strides[level];
        float low = cell[side] + middle, high = cell[side + 2] + middle;
        float size = high - low, center = low + 0.5f * size;
        const float *values = deltas + anchor * 4 * positions + position;
        float shift = values[(size_t)side * positions] / s->box_weights[side];
        float scale = values[(size_t)(side + 2) * positions] / s->box_weights[side + 2];
        if (scale > s->scale_clamp) scale = s->scale_clamp;
        center = shift * size + center;
        size = expf(scale) * size;
        found->box[side] = center - 0.5f * size;
        found->box[side + 2] = center + 0.5f * size;
    }
}

static float overlap(const float *a, const float *b) {
    float width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    float height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    float both = (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
    float area_a = (a[2] - a[0]) * (a[3] - a[1]), area_b = (b[2] - b[0]) * (b[3] - b[1]);
    return both / (area_a + area_b - both);
}

int32_t topformer_find_boxes(topformer_box_plan *plan, const float *const *logits,
                             const float *const *deltas, float *boxes, float *scores,
                             int32_t *classes) {
    const topformer_box_settings *s = &plan->settings;
    float least = s->score_threshold, threshold;
    int32_t level, i, k, total = 0, num_kept = 0;
    threshold = least <= 0.0f   ? -INFINITY
                : least >= 1.0f ? INFINITY
                                : (float)log((double)least / (1.0 - (double)least));
    for (level = 0; level < s->levels; level++) {
        size_t cells = (size_t)plan->heights[level] * (size_t)plan->widths[level] *
                       (size_t)s->anchors;
        size_t num_logits = cells * (size_t)s->classes;
        candidate *best = plan->candidates + total;
        int32_t count;
        if (!are_finite(logits[level], num_logits) || !are_finite(deltas[level], cells * 4))
            return -1;
        count = find_best(logits[level], num_logits, threshold, s->topk, best);
        qsort(best, (size_t)count, sizeof *best, compare);
        for (i = 0; i < count; i++) {
            decode(plan, level, deltas[level], &best[i]);
            best[i].place = (size_t)(total + i);
        }
        total += count;
    }
    qsort(plan->candidates, (size_t)total, sizeof *plan->candidates, compare);
    for (i = 0; i < total && num_kept < s->max_detections; i++) {
        const candidate *one = &plan->candidates[i];
        for (k = 0; k < num_kept; k++) {
            const candidate *better = &plan->candidates[plan->kept[k]];
            if (better->class_index == one->class_index &&
                overlap(better->box, one->box) > s->nms_threshold)
                break;
        }
        if (k < num_kept) continue;
        memcpy(boxes + (size_t)num_kept * 4, one->box, sizeof one->box);
        scores[num_kept] = 1.0f / (1.0f + expf(-one->logit));
        classes[num_kept] = one->class_index;
        plan->kept[num_kept++] = i;
    }
    return num_kept;
}

/* A copy, or NULL. */
static void *copy_of(const void *values, size_t size) {
    void *copy = malloc(size);
    if (copy) memcpy(copy, values, size);
    return copy;
}

topformer_box_plan *topformer_box_plan_create(const topformer_box_settings *settings) {
    const topformer_box_settings *s = settings;
    topformer_box_plan *plan;
    size_t levels = (size_t)s->levels;
    int32_t i;
    if (s->classes < 1 || s->levels < 1 || s->levels > 16 || s->anchors < 1 || s->topk < 1 ||
        s->topk > (1 << 24) || s->max_detections < 1)
        return NULL;
    for (i = 0; i < s->levels; i++)
        if (s->heights[i] < 1 || s->widths[i] < 1) return NULL;
    for (i = 0; i < 4; i++)
        if (!(s->box_weights[i] > 0.0f)) return NULL;
    if (!(plan = calloc(1, sizeof *plan))) return NULL;
    plan->settings = *s;
    plan->heights = copy_of(s->heights, levels * sizeof *s->heights);
    plan->widths = copy_of(s->widths, levels * sizeof *s->widths);
    plan->strides = copy_of(s->strides, levels * sizeof *s->strides);
    plan->cell_anchors = copy_of(s->cell_anchors,
                                 levels * (size_t)s->anchors * 4 * sizeof *s->cell_anchors);
    plan->candidates = malloc(levels * (size_t)s->topk * sizeof *plan->candidates);
    plan->kept = malloc((size_t)s->max_detections * sizeof *plan->kept);
    if (!plan->heights || !plan->widths || !plan->strides || !plan->cell_anchors ||
        !plan->candidates || !plan->kept) {
        topformer_box_plan_free(plan);
        return NULL;
    }
    return plan;
}

void topformer_box_plan_free(topformer_box_plan *plan) {
    if (!plan) return;
    free(plan->heights);
    free(plan->widths);
    free(plan->strides);
    free(plan->cell_anchors);
    free(plan->candidates);
    free(plan->kept);
    free(plan);
}
