# Writes what the extension says of itself, for the test to read.
file(WRITE "${CMAKE_BINARY_DIR}/extension.txt" "")
foreach(field HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  file(APPEND "${CMAKE_BINARY_DIR}/extension.txt" "${field}=${EXTENSION_${field}}\n")
endforeach()
