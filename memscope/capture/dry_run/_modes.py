"""What stands between a program's calls of torch and the dry run: modes, and how tensors and threads come into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run._kernel_choices import Autocast
from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._redirect import CallContext


def hiding(fake_type: Any, router: OperationRouter) -> Any:
    """How a fake tensor answers inside an operation: where its device must be hidden, it is on the host to C++."""
    import torch

    plain = fake_type.__torch_dispatch__
    ask_device, host = torch.ops.prim.device.default, torch.device("cpu")

    def dispatch(_: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ask_device and router.hides_device and not args[0].fake_mode.in_kernel_invocation:
            return host
        return plain(func, types, args, kwargs or {})

    return classmethod(dispatch)


def guarded_thread(router: OperationRouter) -> Callable[[threading.Thread], None]:
    """How threads of the program start: torch's modes are a thread's own, so that others would go unseen."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class HostOnly(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return router.refuse_device(func, args, dict(kwargs) if kwargs else {})

    bootstrap: Callable[[threading.Thread], None] = vars(threading.Thread)["_bootstrap_inner"]

    def guarded(thread: threading.Thread) -> None:
        with HostOnly():
            bootstrap(thread)

    return guarded


_compiles_nothing = classmethod(lambda _: False)
"""Nothing is compiled in a dry run: torch need not be kept from compiling its modes, at some microseconds a call."""


def modes_of(router: OperationRouter, autocast: Autocast, on_wrapped: Callable[[], None]) -> list[Any]:
    """The torch modes of a dry run, outermost first; made here because torch must not be imported before."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.overrides import TorchFunctionMode

    ask_device, host = torch.ops.prim.device.default, torch.device("cpu")
    context = CallContext(router, autocast)

    class FakeDeviceMode(FakeTensorMode):
        """Fake tensors that never wake a real device, whatever ``torch.cuda.is_available`` says."""

        avoid_device_init = True
        _should_skip_dynamo = _compiles_nothing

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is ask_device and router.hides_device and not self.in_kernel_invocation:
                return host
            return super().__torch_dispatch__(func, types, args, kwargs or {})

        def __deepcopy__(self, _: Any) -> Any:
            """Copies of tensors copy what they know, too, and stay in the dry run."""
            return self

    class CallMode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return context.call(func, args, dict(kwargs) if kwargs else {})

    return [FakeDeviceMode(allow_non_fake_inputs=True), _operation_mode(router, on_wrapped), CallMode()]


def _operation_mode(router: OperationRouter, on_wrapped: Callable[[], None]) -> Any:
    """The mode that gives each operation to the router."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import TorchDispatchMode

    ask_device, host = torch.ops.prim.device.default, torch.device("cpu")
    plain_types = frozenset([torch.Tensor, torch.nn.Parameter, FakeTensor])

    class OperationMode(TorchDispatchMode):
        _should_skip_dynamo = _compiles_nothing
        _lets_pass = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is ask_device:
                return host
            if not plain_types.issuperset(types):
                return self._unwrapped(func, args, kwargs or {})
            given = dict(kwargs) if kwargs else {}
            if torch.is_inference_mode_enabled():
                with self:  # composite operations come here whole then: what they are made of allocates
                    result = func.decompose(*args, **given)
                if result is not NotImplemented:
                    return result
            return router.dispatch(func, args, given)

        def _unwrapped(self, func: Any, args: Any, kwargs: Any) -> Any:
            """Let tensors that wrap others say what is done with those inside, which comes here again.

            The engine reuses no gradient's memory where one is of another class.
            """
            if self._lets_pass:
                self._lets_pass = False
                return NotImplemented
            on_wrapped()
            outer, router.is_accumulating, self._lets_pass = router.is_accumulating, False, True
            try:
                with self:
                    return func(*args, **kwargs)
            finally:
                router.is_accumulating, self._lets_pass = outer, False

    return OperationMode()
