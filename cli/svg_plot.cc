#include "cli/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace::cli {
namespace {

// Pixels of the picture, and of the frame within it.
constexpr double kWidth = 640;
constexpr double kHeight = 280;
constexpr double kLeft = 70;
constexpr double kRight = 620;
constexpr double kTop = 30;
constexpr double kBottom = 235;

// Told apart by most of those who see colours differently (Okabe and Ito).
constexpr std::array<const char*, 6> kColours = {"#0072b2", "#d55e00", "#009e73",
                                                 "#cc79a7", "#e69f00", "#56b4e9"};

struct Scale {
  double greatest;
  double from;
  double to;

  double At(double value) const { return from + (to - from) * value / greatest; }
};

std::string Text(double x, double y, const char* anchor, std::string_view text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                         EscapeHtml(text));
}

std::string Line(double x1, double y1, double x2, double y2) {
  return absl::StrFormat(
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", x1, y1, x2, y2);
}

std::string Axes(const PlotLabels& labels, const std::vector<double>& x_ticks,
                 const std::vector<double>& y_ticks, const Scale& x, const Scale& y) {
  std::string out;
  for (const double tick : x_ticks) {
    absl::StrAppend(&out, Line(x.At(tick), kTop, x.At(tick), kBottom),
                    Text(x.At(tick), kBottom + 15, "middle", absl::StrCat(tick)));
  }
  for (const double tick : y_ticks) {
    absl::StrAppend(&out, Line(kLeft, y.At(tick), kRight, y.At(tick)),
                    Text(kLeft - 6, y.At(tick) + 4, "end", absl::StrCat(tick)));
  }
  absl::StrAppend(&out, Text((kLeft + kRight) / 2, kBottom + 34, "middle", labels.x),
                  Text(kLeft, kTop - 12, "start", absl::StrCat(labels.title, ", ", labels.y)));
  return out;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> RoundTicks(double greatest) {
  if (!(greatest > 0) || !std::isfinite(greatest)) greatest = 1;
  const double power = std::pow(10, std::floor(std::log10(greatest)) - 1);
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0, 20.0}) {
    step = factor * power;
    if (greatest / step <= 8) break;
  }
  std::vector<double> ticks = {0};
  // Counted, so that no error adds up; a billionth of a step is none.
  for (int i = 1; ticks.back() < greatest - step * 1e-9; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string LinePlot(const PlotLabels& labels, const std::vector<PlotSeries>& series) {
  double most_x = 0;
  double most_y = 0;
  for (const PlotSeries& one : series) {
    for (const auto& [x, y] : one.points) {
      most_x = std::max(most_x, x);
      most_y = std::max(most_y, y);
    }
  }
  const std::vector<double> x_ticks = RoundTicks(most_x);
  const std::vector<double> y_ticks = RoundTicks(most_y);
  const Scale x{x_ticks.back(), kLeft, kRight};
  const Scale y{y_ticks.back(), kBottom, kTop};
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" role=\"img\" font-family=\"sans-serif\" "
      "font-size=\"11\">\n<title>%s</title>\n",
      kWidth, kHeight, kWidth, EscapeHtml(labels.title));
  absl::StrAppend(&out, Axes(labels, x_ticks, y_ticks, x, y));
  double legend = kRight;
  for (std::size_t i = 0; i < series.size(); ++i) {
    if (series[i].points.empty()) continue;
    const char* const colour = kColours[i % kColours.size()];
    absl::StrAppend(&out, "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"", colour,
                    "\" points=\"");
    for (const auto& [px, py] : series[i].points) {
      absl::StrAppendFormat(&out, "%.1f,%.1f ", x.At(px), y.At(py));
    }
    absl::StrAppend(&out, "\"/>\n");
    if (series.size() == 1) continue;
    absl::StrAppendFormat(&out,
                          "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">%s</text>\n",
                          legend, kTop - 12, colour, EscapeHtml(series[i].name));
    legend -= 12 + 7.0 * static_cast<double>(series[i].name.size());
  }
  return out + "</svg>\n";
}

}  // namespace millrace::cli
