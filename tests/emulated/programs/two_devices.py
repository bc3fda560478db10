"""Work on two devices and copy between them."""

import torch
from evidence import leave

first = [torch.zeros(n, 1024, device="cuda:0") for n in (10, 300, 3000)]
second = [tensor.to("cuda:1") for tensor in first]
del first[1]
first.append(second[2].to("cuda:0"))
second.append(torch.empty(1000, 1000, device="cuda:1") @ torch.empty(1000, 1000, device="cuda:1"))
devices = [tensor.device.index for tensor in (*first, *second)]
leave(devices=devices)
