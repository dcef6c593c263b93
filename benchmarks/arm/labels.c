/* labels WAY CLASSES HEIGHT WIDTH LABEL_HEIGHT LABEL_WIDTH LOGITS LABELS: a label map of a file of
   float32 logits. WAY is label_map, plain, or none, which only reads and writes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "label_map.h"

/* For each output position the input position before it, and the weight of the one after it. */
static void place(int in, int out, int *first, float *weight) {
    for (int i = 0; i < out; i++) {
        float source = ((float)i + 0.5f) * (float)in / (float)out - 0.5f;
        if (source < 0) source = 0;
        first[i] = (int)source < in - 1 ? (int)source : in > 1 ? in - 2 : 0;
        weight[i] = in > 1 ? source - (float)first[i] : 0;
        if (weight[i] > 1) weight[i] = 1;
    }
}

/* All logits resized, bilinearly without antialiasing, first along the rows. The best class of a
   pixel is kept while the classes come in turn, so that no map of all classes is written: this is
   less work than a library's resizing followed by its argmax. */
static void plain(const topformer_label_sizes *s, const float *logits, unsigned char *labels) {
    const int high = s->height, wide = s->width, rows = s->label_height, columns = s->label_width;
    const size_t area = (size_t)rows * (size_t)columns;
    int *x = malloc(sizeof(int) * (size_t)columns), *y = malloc(sizeof(int) * (size_t)rows);
    float *wx = malloc(sizeof(float) * (size_t)columns), *wy = malloc(sizeof(float) * (size_t)rows);
    float *stretched = malloc(sizeof(float) * (size_t)high * (size_t)columns);
    float *best = malloc(sizeof(float) * area);
    if (!x || !y || !wx || !wy || !stretched || !best) exit(3);
    place(wide, columns, x, wx);
    place(high, rows, y, wy);
    for (int k = 0; k < s->classes; k++) {
        const float *map = logits + (size_t)k * (size_t)high * (size_t)wide;
        for (int r = 0; r < high; r++) {
            const float *row = map + (size_t)r * (size_t)wide;
            float *to = stretched + (size_t)r * (size_t)columns;
            for (int c = 0; c < columns; c++) {
                float left = row[x[c]], right = row[x[c] + (wide > 1)];
                to[c] = left + wx[c] * (right - left);
            }
        }
        for (int r = 0; r < rows; r++) {
            const float *above = stretched + (size_t)y[r] * (size_t)columns;
            const float *below = above + (high > 1 ? columns : 0), weight = wy[r];
            float *restrict most = best + (size_t)r * (size_t)columns;
            unsigned char *restrict label = labels + (size_t)r * (size_t)columns;
            for (int c = 0; c < columns; c++) {
                float value = above[c] + weight * (below[c] - above[c]);
                int better = k == 0 || value > most[c];
                most[c] = better ? value : most[c];
                label[c] = better ? (unsigned char)k : label[c];
            }
        }
    }
    free(x), free(y), free(wx), free(wy), free(stretched), free(best);
}

int main(int argc, char **argv) {
    if (argc != 9) return 1;
    topformer_label_sizes s = {
        .classes = atoi(argv[2]), .height = atoi(argv[3]), .width = atoi(argv[4]),
        .label_height = atoi(argv[5]), .label_width = atoi(argv[6])};
    s.input_height = s.label_height;
    s.input_width = s.label_width;
    size_t values = (size_t)s.classes * (size_t)s.height * (size_t)s.width;
    size_t pixels = (size_t)s.label_height * (size_t)s.label_width;
    float *logits = malloc(sizeof(float) * values);
    unsigned char *labels = calloc(pixels, 1);
    FILE *in = fopen(argv[7], "rb"), *out = fopen(argv[8], "wb");
    if (!logits || !labels || !in || !out) return 2;
    if (fread(logits, sizeof(float), values, in) != values) return 2;
    /* In all ways, for a program makes it once. */
    topformer_label_plan *plan = topformer_label_plan_create(&s);
    if (!plan) return 3;
    if (!strcmp(argv[1], "plain")) plain(&s, logits, labels);
    if (!strcmp(argv[1], "label_map") && topformer_label_map(plan, logits, labels, NULL)) return 4;
    topformer_label_plan_free(plan);
    fwrite(labels, 1, pixels, out);
    return fclose(in) || fclose(out);
}
