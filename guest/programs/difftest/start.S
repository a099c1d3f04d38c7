/*
 * The parts of difftest that cannot be said in C: the entry point, the return
 * from a signal handler, and accesses that may fault.
 *
 * Each probe saves the stack pointer in `probe_stack` while it is under way.
 * The signal handler puts it back and continues at `probe_failed`, so that
 * the probe seems to return -1.
 */
        .text
        .globl  _start, signal_return, probe_read, probe_write, probe_exec, probe_failed

_start:
        xorl    %ebp, %ebp
        movq    %rsp, %rdi
        andq    $-16, %rsp
        call    run_main
        ud2

signal_return:
        movl    $15, %eax               /* rt_sigreturn */
        syscall

/* long probe_read(address): the byte, or -1 */
probe_read:
        movq    %rsp, probe_stack(%rip)
        movzbl  (%rdi), %eax
        movq    $0, probe_stack(%rip)
        ret

/* long probe_write(address, byte): 0, or -1 */
probe_write:
        movq    %rsp, probe_stack(%rip)
        movb    %sil, (%rdi)
        xorl    %eax, %eax
        movq    $0, probe_stack(%rip)
        ret

/* long probe_exec(address of a ret): 0, or -1 */
probe_exec:
        movq    %rsp, probe_stack(%rip)
        call    *%rdi
        xorl    %eax, %eax
        movq    $0, probe_stack(%rip)
        ret

probe_failed:
        movq    $0, probe_stack(%rip)
        movq    $-1, %rax
        ret

        .section .note.GNU-stack, "", @progbits
