# SPDX-License-Identifier: Apache-2.0
# godwit_folder(FOLDER LINKS target...): the static library godwit_<last name of FOLDER> of its *.c.
function(godwit_folder folder)
  cmake_parse_arguments(PARSE_ARGV 1 folder "" "" "LINKS")
  get_filename_component(name ${folder} NAME)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  if(NOT sources) # headers alone
    add_library(godwit_${name} INTERFACE)
    target_link_libraries(godwit_${name} INTERFACE ${folder_LINKS})
    return()
  endif()
  add_library(godwit_${name} STATIC ${sources})
  target_include_directories(godwit_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(godwit_${name} PUBLIC ${folder_LINKS} PRIVATE godwit_flags)
endfunction()
