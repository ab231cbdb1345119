# Joins the files of this folder into one page and writes it as C++:
#   cmake -DOUT=status_page.cc "-DSCRIPTS=first.js;second.js" -P embed.cmake
# The scripts become one, in this order.
#
# The page's policy names its style and its script by their SHA-256, so that no other runs.

# HEX, 64 digits, as base64: CMake has none.
function(sha256_base64 hex out)
  set(digits "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(text "")
  # 32 bytes are ten groups of three and two bytes, here with a third of 0.
  foreach(group RANGE 0 10)
    math(EXPR begin "${group} * 6")
    string(SUBSTRING "${hex}00" ${begin} 6 part)
    foreach(shift 18 12 6 0)
      math(EXPR index "(0x${part} >> ${shift}) & 63")
      string(SUBSTRING "${digits}" ${index} 1 digit)
      string(APPEND text "${digit}")
    endforeach()
  endforeach()
  string(SUBSTRING "${text}" 0 43 text)  # the last digit is of that third byte
  set(${out} "'sha256-${text}='" PARENT_SCOPE)
endfunction()

set(delimiter "status_page")
foreach(name index.html style.css ${SCRIPTS})
  file(READ "${CMAKE_CURRENT_LIST_DIR}/${name}" text)
  if(text MATCHES "\\)${delimiter}\"")
    message(FATAL_ERROR "${name} ends the string literal that it is put into")
  endif()
  set(${name} "${text}")
endforeach()
set(joined "\"use strict\";\n")
foreach(name ${SCRIPTS})
  string(APPEND joined "${${name}}")
endforeach()
string(SHA256 style "${style.css}")
string(SHA256 script "${joined}")
sha256_base64(${style} style)
sha256_base64(${script} script)
string(REPLACE "@STYLE@" "${style.css}" page "${index.html}")
string(REPLACE "@SCRIPT@" "${joined}" page "${page}")

# Nothing but the page's own style and script, and fetches from its own origin; no text becomes markup.
string(CONCAT policy
       "default-src 'none'; style-src ${style}; script-src ${script}; connect-src 'self'; img-src data:; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "require-trusted-types-for 'script'; trusted-types 'none'")
file(WRITE "${OUT}" "// Made by service/status_page/embed.cmake.
#include \"service/status_page.h\"

namespace millrace {

constinit const std::string_view kStatusPage = R\"${delimiter}(${page})${delimiter}\";
constinit const std::string_view kStatusPagePolicy = R\"${delimiter}(${policy})${delimiter}\";

}  // namespace millrace
")
