// Runs a model of `topformer export --format openvino` on an image, and writes what it sees:
//
//     predict model.xml street.png street_labels.png
//
// each pixel in the colour of its class, and the boxes of objects. It prints how much of the image
// each class has, and the boxes. label_map.c and boxes.c take the network's output of any runtime.
// The lines marked "OpenVINO" are of this one.

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "boxes.h"
#include "label_map.h"
#include "stb_image.h"
#include "stb_image_write.h"

using nlohmann::json;
using Color = std::array<uint8_t, 3>;
struct Image {  // RGB, rows from the top
    int height = 0, width = 0;
    std::vector<uint8_t> pixels;
};

static Image read_image(const char *path) {
    Image image;
    uint8_t *data = stbi_load(path, &image.width, &image.height, nullptr, 3);
    if (!data) throw std::runtime_error(std::string(path) + ": " + stbi_failure_reason());
    image.pixels.assign(data, data + size_t(image.height) * image.width * 3);
    stbi_image_free(data);
    return image;
}

// The size that the network takes an image in: the file's own, or the largest one within the sides.
static std::pair<int, int> network_size(const json &info, const Image &image) {
    if (!info["size"].is_null()) return {info["size"][0], info["size"][1]};
    const json &model = info["model"];
    int height = image.height, width = image.width;
    if (model["short_side"] > 0) {
        const double scale = std::min(double(model["long_side"]) / std::max(height, width),
                                      double(model["short_side"]) / std::min(height, width));
        height = std::max(1, int(height * scale + 0.5));
        width = std::max(1, int(width * scale + 0.5));
    }
    const int n = model["size_divisor"];
    return {(height + n - 1) / n * n, (width + n - 1) / n * n};
}

// Resized bilinearly (the middles of corner pixels as in OpenCV) to values of 0 to 255, then
// normalised, with the channels in the network's order: (3, height, width).
static void fill_input(const Image &image, const json &model, int height, int width, float *out) {
    const bool is_rgb = model["image_format"] == "RGB";
    auto position = [](int i, int from, int to) {
        return std::clamp((i + 0.5f) * from / to - 0.5f, 0.0f, from - 1.0f);
    };
    for (int channel = 0; channel < 3; ++channel) {
        const float mean = model["pixel_mean"][channel], std = model["pixel_std"][channel];
        const int source = is_rgb ? channel : 2 - channel;
        for (int y = 0; y < height; ++y) {
            const float fy = position(y, image.height, height);
            const int y0 = int(fy), y1 = std::min(y0 + 1, image.height - 1);
            for (int x = 0; x < width; ++x) {
                const float fx = position(x, image.width, width);
                const int x0 = int(fx), x1 = std::min(x0 + 1, image.width - 1);
                auto at = [&](int row, int column) {
                    return float(image.pixels[(size_t(row) * image.width + column) * 3 + source]);
                };
                const float top = at(y0, x0) + (at(y0, x1) - at(y0, x0)) * (fx - x0);
                const float bottom = at(y1, x0) + (at(y1, x1) - at(y1, x0)) * (fx - x0);
                const float value = std::round(top + (bottom - top) * (fy - y0));
                out[(size_t(channel) * height + y) * width + x] = (value - mean) / std;
            }
        }
    }
}

static void paint_labels(ov::Tensor logits, int height, int width, const json &table, Image &image) {
    const ov::Shape shape = logits.get_shape();  // (1, classes, rows, columns)
    const topformer_label_sizes sizes = {int(shape[1]), int(shape[2]), int(shape[3]), height,
                                         width,         0,             0,             image.height,
                                         image.width};
    std::unique_ptr<topformer_label_plan, decltype(&topformer_label_plan_free)> plan(
        topformer_label_plan_create(&sizes), topformer_label_plan_free);
    std::vector<uint8_t> labels(size_t(image.height) * image.width);
    if (shape[1] > 256) throw std::runtime_error("more than 256 classes: labels are uint16_t then");
    if (!plan || topformer_label_map(plan.get(), logits.data<float>(), labels.data(), nullptr))
        throw std::runtime_error("the label map cannot be made of these logits");
    std::vector<size_t> counts(shape[1]);
    const auto colors = table["colors"].get<std::vector<Color>>();
    for (size_t i = 0; i < labels.size(); ++i) {
        ++counts[labels[i]];
        std::copy_n(colors[labels[i]].begin(), 3, &image.pixels[3 * i]);
    }
    for (size_t k = 0; k < counts.size(); ++k)
        if (counts[k])
            std::printf("%-16s %5.1f%%\n", table["names"][k].get<std::string>().c_str(),
                        100.0 * counts[k] / labels.size());
}

static void draw_box(Image &image, const float *box, Color color) {
    auto within = [](float value, int size) { return std::clamp(int(value), 0, size - 1); };
    const int x0 = within(box[0], image.width), x1 = within(box[2], image.width);
    const int y0 = within(box[1], image.height), y1 = within(box[3], image.height);
    for (int y = y0; y <= y1; ++y)
        for (int x = x0; x <= x1; ++x)
            if (std::min({y - y0, y1 - y, x - x0, x1 - x}) < 2)
                std::copy_n(color.begin(), 3, &image.pixels[(size_t(y) * image.width + x) * 3]);
}

static void find_boxes(ov::InferRequest &request, const json &info, int height, int width,
                       Image &image) {
    const json &decoding = info["decoding"], &table = info["model"]["objects"];
    std::vector<const float *> logits, deltas;
    std::vector<int32_t> heights, widths;
    for (const std::string name : info["outputs"]) {
        const ov::Tensor tensor = request.get_tensor(name);  // OpenVINO
        if (name.rfind("box_deltas_", 0) == 0) deltas.push_back(tensor.data<float>());
        if (name.rfind("class_logits_", 0)) continue;
        logits.push_back(tensor.data<float>());
        heights.push_back(int(tensor.get_shape()[2]));
        widths.push_back(int(tensor.get_shape()[3]));
    }
    const auto strides = decoding["strides"].get<std::vector<float>>();
    if (logits.size() != strides.size() || deltas.size() != strides.size())
        throw std::runtime_error("the boxes are in the graph: export the model with --raw-boxes");
    const auto weights = decoding["box_weights"].get<std::array<float, 4>>();
    std::vector<float> anchors;
    for (const json &level : decoding["cell_anchors"])
        for (const json &anchor : level) anchors.insert(anchors.end(), anchor.begin(), anchor.end());
    const int most = decoding["max_detections"];
    topformer_box_settings settings = {};
    settings.classes = int(table["names"].size());
    settings.levels = int(strides.size());
    settings.anchors = int(decoding["cell_anchors"][0].size());
    settings.heights = heights.data(), settings.widths = widths.data();
    settings.strides = strides.data();
    settings.cell_anchors = anchors.data();
    settings.offset = decoding["offset"];
    std::copy(weights.begin(), weights.end(), settings.box_weights);
    settings.scale_clamp = decoding["scale_clamp"];
    settings.score_threshold = std::max(0.5f, decoding["score_threshold"].get<float>());
    settings.topk = decoding["topk"];
    settings.nms_threshold = decoding["nms_threshold"];
    settings.max_detections = most;
    std::unique_ptr<topformer_box_plan, decltype(&topformer_box_plan_free)> plan(
        topformer_box_plan_create(&settings), topformer_box_plan_free);
    if (!plan) throw std::runtime_error("the boxes' settings in the file do not fit");
    std::vector<float> boxes(4 * most), scores(most);
    std::vector<int32_t> classes(most);
    const int count = topformer_find_boxes(plan.get(), logits.data(), deltas.data(), boxes.data(),
                                           scores.data(), classes.data());
    if (count < 0) throw std::runtime_error("the network's outputs are not finite");
    const float fy = float(image.height) / height, fx = float(image.width) / width;
    for (int i = 0; i < count; ++i) {
        float *box = &boxes[4 * i];
        for (int k = 0; k < 4; ++k) box[k] = std::max(0.0f, box[k] * (k % 2 ? fy : fx));
        std::printf("%-16s %.3f  %.1f %.1f %.1f %.1f\n",
                    table["names"][classes[i]].get<std::string>().c_str(), scores[i], box[0],
                    box[1], std::min(box[2], float(image.width)),
                    std::min(box[3], float(image.height)));
        draw_box(image, box, table["colors"][classes[i]].get<Color>());
    }
}

int main(int argc, char **argv) try {
    if (argc != 4) throw std::runtime_error("usage: predict MODEL.xml IMAGE OUTPUT.png");
    ov::Core core;  // OpenVINO
    auto model = core.read_model(argv[1]);
    const json info = json::parse(model->get_rt_info<std::string>("topformer_d2"));
    auto request = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT", "f32"}})
                       .create_infer_request();
    Image image = read_image(argv[2]);
    const auto [height, width] = network_size(info, image);
    ov::Tensor input(ov::element::f32, {1, 3, size_t(height), size_t(width)});
    fill_input(image, info["model"], height, width, input.data<float>());
    request.set_input_tensor(input);  // OpenVINO
    request.infer();
    if (info["outputs"][0] == "labels")
        throw std::runtime_error("the label map is in the graph: export without --labels");
    if (info["outputs"][0] == "logits")
        paint_labels(request.get_tensor("logits"), height, width, info["model"]["pixels"], image);
    if (!info["decoding"].is_null()) find_boxes(request, info, height, width, image);
    if (!stbi_write_png(argv[3], image.width, image.height, 3, image.pixels.data(), 0))
        throw std::runtime_error(std::string(argv[3]) + " cannot be written");
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
