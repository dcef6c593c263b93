/* See label_map.h.
 *
 * Words of this file: a node is a pixel of the logits. A cell is the set of output pixels that are
 * interpolated from the same few nodes. Where one class is the largest at all nodes of a cell, it is
 * the label of all pixels there. In the other cells, which are called open, only those classes are
 * interpolated that can be the largest at some pixel.
 *
 * The loops over classes, nodes and pixels are plain ones that compilers vectorise.
 */
#include "label_map.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of GCC and glibc on x86: each such function is compiled for AVX2 too, and chosen at load time. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define HOT __attribute__((target_clones("avx2", "default")))
#else
#define HOT
#endif

enum {
    TAPS = 4,        /* nodes along one side of which a pixel is made: two for each resize */
    MOST = 64,       /* pixels along one side of a cell; larger ones are cut */
    LANES = 8,       /* pixels and classes that are worked on at a time */
    BLOCK = 1024,    /* nodes whose largest class is looked for at a time */
    WINNERS = 4      /* of a cell, of which pairs are taken to exclude other classes */
};

/* What all classes that are left out of a softmax may add up to, beside the winner's 1. */
static const float SOFTMAX_TOLERANCE = 1e-4f;
/* Above what rounding does to an interpolated value, in parts of the largest one. */
static const float ROUNDING = 1e-6f;

/* Output positions along one side, in groups that are made of the same nodes. */
typedef struct {
    int32_t size;
    int32_t groups;
    int32_t most_taps;
    int32_t *start;   /* (groups + 1): the first position of each group */
    int32_t *taps;    /* (groups): its number of nodes */
    int32_t *nodes;   /* (groups, TAPS), ascending */
    float *weights;   /* of a group (most_taps, lanes), see weights_of() */
} axis;

struct topformer_label_plan {
    topformer_label_sizes sizes;
    int32_t padded;        /* classes, rounded up to LANES */
    axis rows, columns;
    uint16_t *winners;     /* (height, width): the largest class at each node */
    float *by_node;        /* (slots, width, padded): logits with the classes side by side */
    unsigned char *is_there; /* (slots, width): whether that has been made */
    int32_t slot_rows[TAPS]; /* the row of nodes in each slot, or -1 */
    int32_t *open;         /* (column groups): the open cells of a row of cells */
    int32_t *needed;       /* (width): the nodes of a row that these have */
    float *low, *high;     /* (padded): shares of two winners, see exclude() */
    unsigned char *keep;   /* (padded): classes that can be the largest */
    int32_t *candidates;   /* (classes): those classes */
    float *node_best;      /* (BLOCK) */
    float *node_check;     /* (BLOCK) */
    int32_t *node_index;   /* (BLOCK) */
    float *values, *best, *total; /* (MOST, MOST): of a cell */
    int32_t *index;        /* (MOST, MOST) */
};

/* A cell, as the plan's slots have it. */
typedef struct {
    int32_t row_group, column_group;
    int32_t num_nodes, row_taps, column_taps;
    const float *nodes[TAPS * TAPS]; /* the classes' logits at each node */
} cell;

/* ---- Axes ---- */

/* Where PyTorch's bilinear resize reads for an output position, in float32 as it computes that. */
static void source_position(int32_t num_in, int32_t num_out, int32_t position, int32_t index[2],
                            float share[2]) {
    float scale, source, fraction;
    if (num_in == num_out) {
        index[0] = index[1] = position;
        share[0] = 1.0f;
        share[1] = 0.0f;
        return;
    }
    scale = (float)num_in / (float)num_out;
    source = scale * ((float)position + 0.5f);
    source = source - 0.5f;
    if (source < 0.0f) source = 0.0f;
    index[0] = (int32_t)source;
    if (index[0] > num_in - 1) index[0] = num_in - 1;
    index[1] = index[0] < num_in - 1 ? index[0] + 1 : index[0];
    fraction = source - (float)index[0];
    if (fraction > 1.0f) fraction = 1.0f;
    share[0] = 1.0f - fraction;
    share[1] = fraction;
}

/* The nodes of a position, ascending, and their weights; the number of nodes. */
static int32_t find_taps(int32_t num_nodes, int32_t input, int32_t valid, int32_t size,
                         int32_t position, int32_t nodes[TAPS], float weights[TAPS]) {
    int32_t outer[2], inner[2], i, j, k, count = 0;
    float outer_share[2], inner_share[2];
    source_position(valid, size, position, outer, outer_share);
    for (i = 0; i < 2; i++) {
        source_position(num_nodes, input, outer[i], inner, inner_share);
        for (j = 0; j < 2; j++) {
            float weight = outer_share[i] * inner_share[j];
            if (!(weight > 0.0f)) continue;
            for (k = count; k > 0 && nodes[k - 1] >= inner[j]; k--) {}
            if (k < count && nodes[k] == inner[j]) {
                weights[k] += weight;
                continue;
            }
            memmove(nodes + k + 1, nodes + k, (size_t)(count - k) * sizeof *nodes);
            memmove(weights + k + 1, weights + k, (size_t)(count - k) * sizeof *weights);
            nodes[k] = inner[j];
            weights[k] = weight;
            count++;
        }
    }
    return count;
}

/* Whether all of `few` are in `many`. */
static int is_subset(const int32_t *few, int32_t num_few, const int32_t *many, int32_t num_many) {
    int32_t i, j = 0;
    for (i = 0; i < num_few; i++) {
        while (j < num_many && many[j] < few[i]) j++;
        if (j == num_many || many[j] != few[i]) return 0;
    }
    return 1;
}

/* The pixels of a group, rounded up to LANES. */
static int32_t lanes_of(const axis *a, int32_t group) {
    return (a->start[group + 1] - a->start[group] + LANES - 1) / LANES * LANES;
}

/* The weights of a group's pixels on its first node; lanes_of() further are those on the next. */
static float *weights_of(const axis *a, int32_t group) {
    size_t pixels = (size_t)a->start[group] + (size_t)group * (LANES - 1);
    return a->weights + pixels * (size_t)a->most_taps;
}

/* Where `weights` is NULL the groups are only counted. */
static void group_positions(axis *a, int32_t num_nodes, int32_t input, int32_t valid) {
    int32_t position, i, start = 0, group = -1, count = 0, num_found;
    int32_t nodes[TAPS] = {0}, found[TAPS] = {0};
    float weights[TAPS];
    for (position = 0; position < a->size; position++) {
        num_found = find_taps(num_nodes, input, valid, a->size, position, found, weights);
        if (group < 0 || position - start == MOST ||
            !(is_subset(found, num_found, nodes, count) ||
              is_subset(nodes, count, found, num_found))) {
            group++;
            start = position;
            count = 0;
            if (a->weights) a->start[group] = start;
        }
        if (num_found > count) {
            count = num_found;
            memcpy(nodes, found, sizeof nodes);
            if (a->weights) {
                a->taps[group] = count;
                memcpy(a->nodes + group * TAPS, nodes, sizeof nodes);
            }
            if (count > a->most_taps) a->most_taps = count;
        }
    }
    a->groups = group + 1;
    if (!a->weights) return;
    a->start[a->groups] = a->size;
    for (group = 0; group < a->groups; group++) {
        for (position = a->start[group]; position < a->start[group + 1]; position++) {
            num_found = find_taps(num_nodes, input, valid, a->size, position, found, weights);
            for (i = 0, count = 0; i < num_found; i++) {
                while (a->nodes[group * TAPS + count] != found[i]) count++;
                weights_of(a, group)[count * lanes_of(a, group) + position - a->start[group]] =
                    weights[i];
            }
        }
    }
}

static int make_axis(axis *a, int32_t num_nodes, int32_t input, int32_t valid, int32_t size) {
    size_t groups;
    a->size = size;
    group_positions(a, num_nodes, input, valid);
    groups = (size_t)a->groups;
    a->start = malloc((groups + 1) * sizeof *a->start);
    a->taps = malloc(groups * sizeof *a->taps);
    a->nodes = malloc(groups * TAPS * sizeof *a->nodes);
    a->weights = calloc(
        ((size_t)size + groups * (LANES - 1)) * (size_t)a->most_taps, sizeof *a->weights);
    if (!a->start || !a->taps || !a->nodes || !a->weights) return 0;
    group_positions(a, num_nodes, input, valid);
    return 1;
}

/* ---- Nodes ---- */

/* The largest class at each of `count` nodes, and 0, or NaN where a logit is not finite. */
HOT static void find_winners(const float *restrict logits, size_t plane, int32_t classes,
                             int32_t count, float *restrict best, int32_t *restrict index,
                             float *restrict check) {
    int32_t i, k;
    for (i = 0; i < count; i++) {
        best[i] = logits[i];
        index[i] = 0;
        check[i] = logits[i] - logits[i];
    }
    for (k = 1; k < classes; k++) {
        const float *restrict values = logits + (size_t)k * plane;
        for (i = 0; i < count; i++) {
            float value = values[i];
            check[i] += value - value;
            index[i] = value > best[i] ? k : index[i];
            best[i] = value > best[i] ? value : best[i];
        }
    }
}

/* Of the rows first to last; 0 where a logit is not finite. */
static int find_all_winners(topformer_label_plan *plan, const float *logits, int32_t logits_row,
                            int32_t logits_rows, int32_t first, int32_t last) {
    size_t width = (size_t)plan->sizes.width, plane = (size_t)logits_rows * width;
    const float *from = logits + (size_t)(first - logits_row) * width;
    uint16_t *winners = plan->winners + (size_t)first * width;
    size_t start, total = (size_t)(last - first + 1) * width;
    for (start = 0; start < total; start += BLOCK) {
        int32_t i, count = (int32_t)(total - start < BLOCK ? total - start : BLOCK);
        int not_finite = 0;
        find_winners(from + start, plane, plan->sizes.classes, count, plan->node_best,
                     plan->node_index, plan->node_check);
        for (i = 0; i < count; i++) {
            not_finite |= plan->node_check[i] != 0.0f;
            winners[start + (size_t)i] = (uint16_t)plan->node_index[i];
        }
        if (not_finite) return 0;
    }
    return 1;
}

/* The slot of a row of nodes; where there is none, one that the rows of the group do not need. */
static int32_t find_slot(topformer_label_plan *plan, int32_t row, const int32_t *rows,
                         int32_t num_rows) {
    int32_t slot, i, is_free;
    for (slot = 0; slot < plan->rows.most_taps; slot++)
        if (plan->slot_rows[slot] == row) return slot;
    for (slot = 0; slot < plan->rows.most_taps - 1; slot++) {
        is_free = 1;
        for (i = 0; i < num_rows; i++) is_free &= plan->slot_rows[slot] != rows[i];
        if (is_free) break;
    }
    plan->slot_rows[slot] = row;
    memset(plan->is_there + (size_t)slot * (size_t)plan->sizes.width, 0,
           (size_t)plan->sizes.width);
    return slot;
}

/* Put the classes of nodes side by side: those that open cells need and that are not there yet. */
static void fill_slot(topformer_label_plan *plan, int32_t slot, const float *row, size_t plane,
                      int32_t num_open) {
    size_t width = (size_t)plan->sizes.width, padded = (size_t)plan->padded;
    unsigned char *is_there = plan->is_there + (size_t)slot * width;
    float *by_node = plan->by_node + (size_t)slot * width * padded;
    int32_t i, t, k, count = 0;
    for (i = 0; i < num_open; i++) {
        int32_t group = plan->open[i];
        for (t = 0; t < plan->columns.taps[group]; t++) {
            int32_t node = plan->columns.nodes[group * TAPS + t];
            if (is_there[node]) continue;
            is_there[node] = 1;
            plan->needed[count++] = node;
        }
    }
    for (k = 0; k < plan->sizes.classes; k++)
        for (i = 0; i < count; i++) {
            size_t node = (size_t)plan->needed[i];
            by_node[node * padded + (size_t)k] = row[(size_t)k * plane + node];
        }
    for (i = 0; i < count; i++)
        for (k = plan->sizes.classes; k < plan->padded; k++)
            by_node[(size_t)plan->needed[i] * padded + (size_t)k] = -FLT_MAX;
}

/* ---- Open cells ---- */

/* Take out of `keep` the classes that cannot be the largest where `one` or `other` is a winner.
 *
 * A class cannot be it if at every node it is below the mean a * one + (1 - a) * other, for one and
 * the same a in 0 to 1. Each node gives the least share that `one`, or `other`, must have for that;
 * such an a exists where the largest of these two shares add up to less than 1.
 *
 * margin: by which it must be below.
 */
HOT static void exclude(const float *const *nodes, int32_t num_nodes, int32_t padded, int32_t one,
                        int32_t other, float margin, float *restrict low, float *restrict high,
                        unsigned char *restrict keep) {
    int32_t n, k;
    for (k = 0; k < padded; k++) low[k] = high[k] = 0.0f;
    for (n = 0; n < num_nodes; n++) {
        const float *restrict values = nodes[n];
        float first = values[one], second = values[other];
        float *restrict shares = first > second ? low : high;
        float least = (first > second ? second : first) - margin;
        float inverse = 1.0f / fabsf(first - second);
        if (inverse <= FLT_MAX) {
            for (k = 0; k < padded; k++) {
                float share = (values[k] - least) * inverse;
                shares[k] = share > shares[k] ? share : shares[k];
            }
        } else { /* both are equal here */
            for (k = 0; k < padded; k++) shares[k] = values[k] >= least ? 2.0f : shares[k];
        }
    }
    for (k = 0; k < padded; k++) keep[k] &= !(low[k] + high[k] < 1.0f);
}

/* The classes that can be the largest in a cell, or matter to its softmax, into `candidates`. */
static int32_t find_candidates(topformer_label_plan *plan, const cell *c, const int32_t *winners,
                               int32_t num_winners, int is_softmax) {
    int32_t i, j, k, n, count = 0;
    float margin = 0.0f;
    for (i = 0; i < num_winners; i++)
        for (n = 0; n < c->num_nodes; n++) {
            float size = fabsf(c->nodes[n][winners[i]]);
            margin = size > margin ? size : margin;
        }
    margin *= ROUNDING;
    if (is_softmax) margin += logf((float)plan->sizes.classes / SOFTMAX_TOLERANCE);
    memset(plan->keep, 1, (size_t)plan->padded);
    if (num_winners == 1)
        exclude(c->nodes, c->num_nodes, plan->padded, winners[0], winners[0], margin, plan->low,
                plan->high, plan->keep);
    for (i = 0; i < num_winners && i < WINNERS; i++)
        for (j = i + 1; j < num_winners && j < WINNERS; j++)
            exclude(c->nodes, c->num_nodes, plan->padded, winners[i], winners[j], margin,
                    plan->low, plan->high, plan->keep);
    for (i = 0; i < num_winners; i++) plan->keep[winners[i]] = 1;
    for (k = 0; k < plan->padded; k += LANES) {
        uint64_t any;
        memcpy(&any, plan->keep + k, sizeof any);
        if (!any) continue;
        for (i = k; i < k + LANES && i < plan->sizes.classes; i++)
            if (plan->keep[i]) plan->candidates[count++] = i;
    }
    return count;
}

/* One class in all pixels of a cell, rows first, then columns.
 *
 * rows, columns: the weights of either side, whose nodes are `row_lanes` and `lanes` apart.
 * values:        (height, lanes).
 */
HOT static void interpolate(const cell *c, int32_t class_index, const float *restrict rows,
                            int32_t height, int32_t row_lanes, const float *restrict columns,
                            int32_t lanes, float *restrict values) {
    int32_t y, x, i, t, u;
    for (y = 0; y < height; y++, values += lanes) {
        float sums[TAPS];
        for (u = 0; u < c->column_taps; u++) {
            sums[u] = rows[y] * c->nodes[u][class_index];
            for (t = 1; t < c->row_taps; t++)
                sums[u] += rows[t * row_lanes + y] * c->nodes[t * c->column_taps + u][class_index];
        }
        if (c->column_taps == 2) { /* most cells */
            const float *restrict second = columns + lanes;
            for (x = 0; x < lanes; x += LANES)
                for (i = x; i < x + LANES; i++)
                    values[i] = sums[0] * columns[i] + sums[1] * second[i];
            continue;
        }
        for (i = 0; i < lanes; i++) values[i] = sums[0] * columns[i];
        for (u = 1; u < c->column_taps; u++)
            for (i = 0; i < lanes; i++) values[i] += sums[u] * columns[u * lanes + i];
    }
}

HOT static void take_larger(const float *restrict values, int32_t count, int32_t class_index,
                            float *restrict best, int32_t *restrict index) {
    int32_t i;
    for (i = 0; i < count; i++) {
        float value = values[i];
        index[i] = value > best[i] ? class_index : index[i];
        best[i] = value > best[i] ? value : best[i];
    }
}

/* Add exp(value - best), of differences up to 0, to a total; the values are lost.
 *
 * It is 2^n * exp(f), f within half of log(2) of 0, by its series.
 */
HOT static void add_exponentials(float *restrict values, int32_t count,
                                 const float *restrict best, float *restrict total) {
    int32_t i;
    for (i = 0; i < count; i++) {
        float power = (values[i] - best[i]) * 1.44269504f;
        values[i] = power < -126.0f ? -126.0f : power;
    }
    for (i = 0; i < count; i++) { /* apart, as compilers vectorise no condition beside it */
        float power = values[i], part, sum;
        int32_t whole;
        union {
            int32_t bits;
            float value;
        } scale;
        whole = (int32_t)(power - 0.5f);
        part = (power - (float)whole) * 0.693147181f;
        sum = 0.0416666667f + part * 0.00833333333f;
        sum = 0.166666667f + part * sum;
        sum = 0.5f + part * sum;
        sum = 1.0f + part * sum;
        sum = 1.0f + part * sum;
        scale.bits = (whole + 127) * (1 << 23);
        total[i] += sum * scale.value;
    }
}

/* Write one pixel's or a run of pixels' label. */
static void write_labels(const topformer_label_plan *plan, void *labels, size_t place,
                         int32_t count, int32_t label) {
    int32_t i;
    if (plan->sizes.classes <= 256)
        memset((unsigned char *)labels + place, label, (size_t)count);
    else
        for (i = 0; i < count; i++) ((uint16_t *)labels)[place + (size_t)i] = (uint16_t)label;
}

/* The pixels of an open cell, of the rows first to stop - 1. */
static void decide(topformer_label_plan *plan, const cell *c, const int32_t *winners,
                   int32_t num_winners, int32_t first, int32_t stop, void *labels,
                   float *confidence) {
    const axis *rows = &plan->rows, *columns = &plan->columns;
    const float *row_weights =
        weights_of(rows, c->row_group) + first - rows->start[c->row_group];
    const float *column_weights = weights_of(columns, c->column_group);
    int32_t row_lanes = lanes_of(rows, c->row_group), lanes = lanes_of(columns, c->column_group);
    int32_t left = columns->start[c->column_group];
    int32_t width = columns->start[c->column_group + 1] - left;
    int32_t pixels = (stop - first) * lanes;
    int32_t i, y, x, count = find_candidates(plan, c, winners, num_winners, confidence != NULL);
    for (i = 0; i < count; i++) {
        int32_t candidate = plan->candidates[i];
        interpolate(c, candidate, row_weights, stop - first, row_lanes, column_weights, lanes,
                    i ? plan->values : plan->best);
        if (i) take_larger(plan->values, pixels, candidate, plan->best, plan->index);
        else
            for (x = 0; x < pixels; x++) plan->index[x] = candidate;
    }
    for (y = 0; y < stop - first; y++) {
        size_t place = (size_t)(first + y) * (size_t)columns->size + (size_t)left;
        const int32_t *index = plan->index + y * lanes;
        if (plan->sizes.classes <= 256)
            for (x = 0; x < width; x++)
                ((unsigned char *)labels)[place + (size_t)x] = (unsigned char)index[x];
        else
            for (x = 0; x < width; x++)
                ((uint16_t *)labels)[place + (size_t)x] = (uint16_t)index[x];
    }
    if (!confidence) return;
    memset(plan->total, 0, (size_t)pixels * sizeof *plan->total);
    for (i = 0; i < count; i++) {
        interpolate(c, plan->candidates[i], row_weights, stop - first, row_lanes, column_weights,
                    lanes, plan->values);
        add_exponentials(plan->values, pixels, plan->best, plan->total);
    }
    for (y = 0; y < stop - first; y++) {
        size_t place = (size_t)(first + y) * (size_t)columns->size + (size_t)left;
        for (x = 0; x < width; x++)
            confidence[place + (size_t)x] = 1.0f / plan->total[y * lanes + x];
    }
}

/* ---- The map ---- */

/* The different winners at the nodes of a cell. */
static int32_t winners_of(const topformer_label_plan *plan, int32_t row_group,
                          int32_t column_group, int32_t winners[TAPS * TAPS]) {
    int32_t t, u, i, count = 0;
    for (t = 0; t < plan->rows.taps[row_group]; t++) {
        const uint16_t *row = plan->winners + (size_t)plan->rows.nodes[row_group * TAPS + t] *
                                                  (size_t)plan->sizes.width;
        for (u = 0; u < plan->columns.taps[column_group]; u++) {
            int32_t winner = row[plan->columns.nodes[column_group * TAPS + u]];
            for (i = 0; i < count && winners[i] != winner; i++) {}
            if (i == count) winners[count++] = winner;
        }
    }
    return count;
}

/* The rows first to stop - 1 of the label map, which one row of cells has. */
static void write_row_of_cells(topformer_label_plan *plan, const float *logits, int32_t logits_row,
                               int32_t logits_rows, int32_t group, int32_t first, int32_t stop,
                               void *labels, float *confidence) {
    const axis *columns = &plan->columns;
    const int32_t *rows = plan->rows.nodes + group * TAPS;
    size_t width = (size_t)plan->sizes.width, plane = (size_t)logits_rows * width;
    size_t line = (size_t)columns->size, place = (size_t)first * line;
    size_t label_size = plan->sizes.classes <= 256 ? 1 : 2;
    int32_t i, t, u, y, num_open = 0, slots[TAPS], winners[TAPS * TAPS];
    for (i = 0; i < columns->groups; i++) {
        write_labels(plan, labels, place + (size_t)columns->start[i],
                     columns->start[i + 1] - columns->start[i],
                     plan->winners[(size_t)rows[0] * width + (size_t)columns->nodes[i * TAPS]]);
        if (winners_of(plan, group, i, winners) > 1 || confidence) plan->open[num_open++] = i;
    }
    for (y = first + 1; y < stop; y++)
        memcpy((unsigned char *)labels + (size_t)y * line * label_size,
               (unsigned char *)labels + place * label_size, line * label_size);
    if (!num_open) return;
    for (t = 0; t < plan->rows.taps[group]; t++) {
        slots[t] = find_slot(plan, rows[t], rows, plan->rows.taps[group]);
        fill_slot(plan, slots[t], logits + (size_t)(rows[t] - logits_row) * width, plane,
                  num_open);
    }
    for (i = 0; i < num_open; i++) {
        cell c;
        c.row_group = group;
        c.column_group = plan->open[i];
        c.row_taps = plan->rows.taps[group];
        c.column_taps = columns->taps[c.column_group];
        c.num_nodes = c.row_taps * c.column_taps;
        for (t = 0; t < c.row_taps; t++)
            for (u = 0; u < c.column_taps; u++) {
                size_t node = (size_t)slots[t] * width +
                              (size_t)columns->nodes[c.column_group * TAPS + u];
                c.nodes[t * c.column_taps + u] = plan->by_node + node * (size_t)plan->padded;
            }
        decide(plan, &c, winners, winners_of(plan, group, c.column_group, winners), first, stop,
               labels, confidence);
    }
}

/* The group that a position is in. */
static int32_t find_group(const axis *a, int32_t position) {
    int32_t low = 0, high = a->groups;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (a->start[middle] <= position) low = middle;
        else high = middle;
    }
    return low;
}

int topformer_label_rows_needed(const topformer_label_plan *plan, int32_t first, int32_t stop,
                                int32_t *logits_first, int32_t *logits_last) {
    const axis *rows = &plan->rows;
    int32_t group, last;
    if (first < 0 || stop <= first || stop > rows->size) return TOPFORMER_BAD_RANGE;
    *logits_first = rows->nodes[find_group(rows, first) * TAPS];
    *logits_last = 0;
    for (group = find_group(rows, first); group <= find_group(rows, stop - 1); group++) {
        last = rows->nodes[group * TAPS + rows->taps[group] - 1];
        if (last > *logits_last) *logits_last = last;
    }
    return TOPFORMER_OK;
}

int topformer_label_rows(topformer_label_plan *plan, const float *logits, int32_t logits_row,
                         int32_t logits_rows, int32_t first, int32_t stop, void *labels,
                         float *confidence) {
    int32_t group, t, first_node, last_node;
    if (topformer_label_rows_needed(plan, first, stop, &first_node, &last_node) != TOPFORMER_OK ||
        first_node < logits_row || last_node >= logits_row + logits_rows)
        return TOPFORMER_BAD_RANGE;
    if (!find_all_winners(plan, logits, logits_row, logits_rows, first_node, last_node))
        return TOPFORMER_NOT_FINITE;
    for (t = 0; t < TAPS; t++) plan->slot_rows[t] = -1;
    for (group = find_group(&plan->rows, first);
         group < plan->rows.groups && plan->rows.start[group] < stop; group++) {
        int32_t from = plan->rows.start[group], to = plan->rows.start[group + 1];
        write_row_of_cells(plan, logits, logits_row, logits_rows, group,
                           from > first ? from : first, to < stop ? to : stop, labels,
                           confidence);
    }
    return TOPFORMER_OK;
}

int topformer_label_map(topformer_label_plan *plan, const float *logits, void *labels,
                        float *confidence) {
    return topformer_label_rows(plan, logits, 0, plan->sizes.height, 0, plan->rows.size, labels,
                                confidence);
}

static int are_valid(const topformer_label_sizes *s) {
    const int32_t most = 1 << 24; /* up to which float32 has all whole numbers */
    if (s->classes < 1 || s->classes > 65536) return 0;
    if (s->height < 1 || s->width < 1 || s->label_height < 1 || s->label_width < 1) return 0;
    if (s->height > most || s->width > most || s->label_height > most || s->label_width > most)
        return 0;
    if (s->input_height < 0 || s->input_width < 0 || s->input_height > most ||
        s->input_width > most || (s->input_height == 0) != (s->input_width == 0))
        return 0;
    return s->valid_height >= 0 && s->valid_width >= 0 && s->valid_height <= s->input_height &&
           s->valid_width <= s->input_width &&
           (s->valid_height == 0) == (s->valid_width == 0);
}

topformer_label_plan *topformer_label_plan_create(const topformer_label_sizes *sizes) {
    topformer_label_plan *plan;
    const topformer_label_sizes *s;
    size_t width, nodes, padded, slots;
    int is_made;
    if (!are_valid(sizes) || !(plan = calloc(1, sizeof *plan))) return NULL;
    plan->sizes = *sizes;
    s = &plan->sizes;
    plan->padded = (s->classes + LANES - 1) / LANES * LANES;
    if (!s->input_height) {
        is_made = make_axis(&plan->rows, s->height, s->height, s->height, s->label_height) &&
                  make_axis(&plan->columns, s->width, s->width, s->width, s->label_width);
    } else {
        is_made = make_axis(&plan->rows, s->height, s->input_height,
                            s->valid_height ? s->valid_height : s->input_height,
                            s->label_height) &&
                  make_axis(&plan->columns, s->width, s->input_width,
                            s->valid_width ? s->valid_width : s->input_width, s->label_width);
    }
    if (is_made) {
        width = (size_t)s->width;
        nodes = (size_t)s->height * width;
        padded = (size_t)plan->padded;
        slots = (size_t)plan->rows.most_taps;
        plan->winners = malloc(nodes * sizeof *plan->winners);
        plan->by_node = malloc(slots * width * padded * sizeof *plan->by_node);
        plan->is_there = malloc(slots * width);
        plan->open = malloc((size_t)plan->columns.groups * sizeof *plan->open);
        plan->needed = malloc(width * sizeof *plan->needed);
        plan->low = malloc(padded * sizeof *plan->low);
        plan->high = malloc(padded * sizeof *plan->high);
        plan->keep = malloc(padded);
        plan->candidates = malloc(padded * sizeof *plan->candidates);
        plan->node_best = malloc(BLOCK * sizeof *plan->node_best);
        plan->node_check = malloc(BLOCK * sizeof *plan->node_check);
        plan->node_index = malloc(BLOCK * sizeof *plan->node_index);
        plan->values = malloc(MOST * MOST * sizeof *plan->values);
        plan->best = malloc(MOST * MOST * sizeof *plan->best);
        plan->total = malloc(MOST * MOST * sizeof *plan->total);
        plan->index = malloc(MOST * MOST * sizeof *plan->index);
        is_made = plan->winners && plan->by_node && plan->is_there && plan->open &&
                  plan->needed && plan->low && plan->high && plan->keep && plan->candidates &&
                  plan->node_best && plan->node_check && plan->node_index && plan->values &&
                  plan->best && plan->total && plan->index;
    }
    if (!is_made) {
        topformer_label_plan_free(plan);
        return NULL;
    }
    return plan;
}

static void free_axis(axis *a) {
    free(a->start);
    free(a->taps);
    free(a->nodes);
    free(a->weights);
}

void topformer_label_plan_free(topformer_label_plan *plan) {
    if (!plan) return;
    free_axis(&plan->rows);
    free_axis(&plan->columns);
    free(plan->winners);
    free(plan->by_node);
    free(plan->is_there);
    free(plan->open);
    free(plan->needed);
    free(plan->low);
    free(plan->high);
    free(plan->keep);
    free(plan->candidates);
    free(plan->node_best);
    free(plan->node_check);
    free(plan->node_index);
    free(plan->values);
    free(plan->best);
    free(plan->total);
    free(plan->index);
    free(plan);
}
