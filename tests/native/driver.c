/* Run cases of label_map.c and boxes.c: driver CASES ANSWERS, files as test_driver.py has them. */
#include <stdio.h>
#include <stdlib.h>

#include "boxes.h"
#include "label_map.h"

static void *take(FILE *file, size_t size) {
    void *values = malloc(size);
    if (!values || fread(values, 1, size, file) != size) exit(2);
    return values;
}

static void label_case(FILE *in, FILE *out) {
    topformer_label_sizes *sizes = take(in, sizeof *sizes);
    size_t logits_size = sizeof(float) * (size_t)sizes->classes * (size_t)sizes->height *
                         (size_t)sizes->width;
    size_t pixels = (size_t)sizes->label_height * (size_t)sizes->label_width;
    size_t labels_size = pixels * (sizes->classes > 256 ? 2 : 1);
    float *logits = take(in, logits_size), *confidence = malloc(pixels * sizeof(float));
    void *labels = malloc(labels_size);
    topformer_label_plan *plan = topformer_label_plan_create(sizes);
    if (!plan || !labels || !confidence) exit(3);
    if (topformer_label_map(plan, logits, labels, confidence) != TOPFORMER_OK) exit(4);
    if (topformer_label_map(plan, logits, labels, NULL) != TOPFORMER_OK) exit(4);
    fwrite(labels, 1, labels_size, out);
    fwrite(confidence, sizeof(float), pixels, out);
    topformer_label_plan_free(plan);
    free(labels);
    free(confidence);
    free(logits);
    free(sizes);
}

/* One level of 2 classes and 1 anchor, 8x8, with a stride of 8. */
static void box_case(FILE *in, FILE *out) {
    const int32_t side = 8;
    const float stride = 8.0f, anchor[4] = {-12.0f, -12.0f, 12.0f, 12.0f};
    topformer_box_settings settings = {
        2, 1, 1, &side, &side, &stride, anchor, 0.5f, {1, 1, 1, 1}, 4.0f, 0.05f, 50, 0.5f, 20};
    float *logits = take(in, sizeof(float) * 2 * 64), *deltas = take(in, sizeof(float) * 4 * 64);
    float boxes[20 * 4] = {0}, scores[20] = {0};
    int32_t classes[20] = {0}, count;
    topformer_box_plan *plan = topformer_box_plan_create(&settings);
    if (!plan) exit(3);
    count = topformer_find_boxes(plan, (const float *const *)&logits,
                                 (const float *const *)&deltas, boxes, scores, classes);
    fwrite(&count, sizeof count, 1, out);
    fwrite(boxes, sizeof boxes, 1, out);
    fwrite(scores, sizeof scores, 1, out);
    fwrite(classes, sizeof classes, 1, out);
    topformer_box_plan_free(plan);
    free(logits);
    free(deltas);
}

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
    int32_t num_label_cases, i;
    if (!out || fread(&num_label_cases, sizeof num_label_cases, 1, in) != 1) return 1;
    for (i = 0; i < num_label_cases; i++) label_case(in, out);
    box_case(in, out);
    return fclose(in) || fclose(out);
}
