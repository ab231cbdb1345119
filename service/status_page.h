// The page that `/` of the metrics port shows, made at build time from service/status_page/.
// Constants: any thread may read them, and they live as long as the program.
#ifndef MILLRACE_SERVICE_STATUS_PAGE_H_
#define MILLRACE_SERVICE_STATUS_PAGE_H_

#include <string_view>

namespace millrace {

// The whole document: it needs nothing else but /metrics.
extern const std::string_view kStatusPage;
// Its Content-Security-Policy.
extern const std::string_view kStatusPagePolicy;

}  // namespace millrace

#endif  // MILLRACE_SERVICE_STATUS_PAGE_H_
