// Plots as SVG text for reports that stand alone: lines over two linear axes. Pure functions.
#ifndef MILLRACE_CLI_SVG_PLOT_H_
#define MILLRACE_CLI_SVG_PLOT_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace::cli {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y, by x
};

struct PlotLabels {
  std::string title;
  std::string x;
  std::string y;
};

// An <svg> element. Axes begin at 0 and end at a round number beyond the greatest value; series
// without points are left out.
std::string LinePlot(const PlotLabels& labels, const std::vector<PlotSeries>& series);

// Round steps (1, 2 or 5 times a power of ten) from 0 that cover `greatest` with 4 to 9 of them.
std::vector<double> RoundTicks(double greatest);

// `text` with what HTML would read as markup replaced.
std::string EscapeHtml(std::string_view text);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_SVG_PLOT_H_
