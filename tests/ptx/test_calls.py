"""Functions that a kernel calls, in the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from ptx.errors import PtxError
from ptx.snippets import compute

# The sum of 1 to n, by a loop; and three times it plus the half of another parameter.
FUNCTIONS = """
.func (.param .b32 func_retval0) triangle
(
  .param .b32 triangle_param_0
)
;
.func (.param .b32 func_retval0) both(
  .param .b32 both_param_0,
  .param .b64 both_param_1
)
{
  .reg .b32 %r<9>;
  .reg .b64 %rd<9>;
  ld.param.b32 %r1, [both_param_0];
  ld.param.b64 %rd1, [both_param_1];
  shr.u64 %rd2, %rd1, 1;
  cvt.u32.u64 %r2, %rd2;
  {
  .param .b32 param0;
  .param .b32 retval0;
  st.param.b32 [param0], %r1;
  call.uni (retval0), triangle, (param0);
  ld.param.b32 %r3, [retval0];
  }
  mad.lo.s32 %r4, %r3, 3, %r2;
  st.param.b32 [func_retval0], %r4;
  ret;
}
.func (.param .b32 func_retval0) triangle(
  .param .b32 triangle_param_0
)
{
  .reg .pred %p<9>;
  .reg .b32 %r<9>;
  ld.param.b32 %r1, [triangle_param_0];
  mov.b32 %r2, 0;
$L_triangle:
  add.s32 %r2, %r2, %r1;
  sub.s32 %r1, %r1, 1;
  setp.gt.s32 %p1, %r1, 0;
  @%p1 bra $L_triangle;
  st.param.b32 [func_retval0], %r2;
  ret;
}
"""
TRIANGLE = """
{{
.param .b32 param0;
.param .b32 retval0;
st.param.b32 [param0], {given};
call.uni (retval0), triangle, (param0);
ld.param.b32 {result}, [retval0];
}}
"""
NUMBERS = np.arange(64, dtype=np.uint32)[:, None]


def triangle(n):
    return n * (n + 1) // 2


def call(given, result):
    return TRIANGLE.format(given=given, result=result)


def test_a_function_is_called_twice_and_leaves_registers_alone():
    body = "mov.b32 %r1, 7;\nmov.b32 %r2, 9;\n" + call("%r0", "%r10") + call("5", "%r11")
    body += "mov.b32 %r12, %r1;\nmov.b32 %r13, %r2;"
    found = compute(body, NUMBERS, functions=FUNCTIONS)
    assert found[:, 0].tolist() == triangle(NUMBERS[:, 0]).tolist()
    assert (found[:, 1:] == [15, 7, 9]).all()


def test_a_function_calls_another_and_takes_parameters_of_two_types():
    body = """
cvt.u64.u32 %rd1, %r90;
{
.param .b32 param0;
.param .b64 param1;
.param .b32 retval0;
st.param.b64 [param1], %rd1;
st.param.b32 [param0], %r0;
call.uni (retval0), both, (param0, param1);
ld.param.b32 %r10, [retval0];
}
"""
    found = compute(body, NUMBERS, threads=64, functions=FUNCTIONS)[:, 0]
    n = NUMBERS[:, 0]
    assert found.tolist() == (3 * triangle(n) + n // 2).tolist()


def test_threads_call_from_different_places_and_meet_again():
    """Odd threads call in a loop, the others once; the barrier at the end finds all of them."""
    loop = f"mov.b32 %r11, 0;\n$L_more:\n{call('%r11', '%r10')}add.s32 %r11, %r11, 1;\n"
    body = (
        "and.b32 %r3, %r90, 1;\nsetp.eq.s32 %p1, %r3, 0;\n@%p1 bra $L_even;\n"
        f"{loop}setp.le.s32 %p2, %r11, %r0;\n@%p2 bra $L_more;\nbra.uni $L_end;\n"
        f"$L_even:\n{call('%r90', '%r10')}$L_end:\nbar.sync 0;\n"
    )
    found = compute(body, NUMBERS, threads=64, functions=FUNCTIONS)[:, 0]
    assert found.tolist() == triangle(NUMBERS[:, 0]).tolist()


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(PtxError, match=r"line \d+: a call of triangle, which is not in the text"):
        compute(call("%r0", "%r10"), NUMBERS)


def test_a_function_that_calls_itself_is_refused():
    endless = FUNCTIONS.replace("mov.b32 %r2, 0;", call("%r1", "%r2"))
    with pytest.raises(PtxError, match="a function that calls itself"):
        compute(call("%r0", "%r10"), NUMBERS, functions=endless)


def test_structures_as_parameters_are_refused():
    functions = FUNCTIONS.replace(".param .b32 triangle_param_0", ".param .align 4 .b8 x[8]")
    with pytest.raises(PtxError, match="a parameter that is not modelled"):
        compute(call("%r0", "%r10"), NUMBERS, functions=functions)
